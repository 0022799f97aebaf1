import hashlib, os
from pathlib import Path
import pytest
CASES = {
 'plain': [], 'mixed': ['algorithm=hetlora', 'clients.silo-1.adapter.lora.r=2', 'adapter.lora.r=4'], 'memory': ['algorithm=ditto'],
 'fedper': ['algorithm=scaffold', 'train.optim=sgd', 'train.momentum=0'], 'xs': ['adapter=lora_xs', 'algorithm=fed_sb'], 'off': ['clients_per_pass=off', 'train.optimizer_state=keep', 'algorithm=fedavg'],
 'flexlora': ['algorithm=flexlora'], 'ia3': ['adapter=ia3', 'algorithm=fedavg'],
}
@pytest.mark.parametrize('name', CASES)
def test_pin(name, hanse, experiment_file, tmp_path):
    got = hanse('run', experiment_file, *CASES[name], f'output_dir={tmp_path / "out"}')
    assert got.code == 0, got.err
    h = hashlib.sha256()
    for f in sorted((tmp_path / 'out' / 'adapter').rglob('*.safetensors')): h.update(f.read_bytes())
    metrics = (tmp_path / 'out' / 'ledger.jsonl').read_text()
    with open(os.environ['PINS'], 'a') as file: file.write(f'{name} {h.hexdigest()}\n')
