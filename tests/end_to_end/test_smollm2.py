"""The real model: a short run, and its adapter in a process that never imports hanse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hanse import journal, simulation
from hanse.division import divide
from hanse.learners.sources import locate
from hanse.loading import load

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("smollm2")]

ROOT = Path(__file__).parents[2]
PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, rows = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
words = [tokenizer(w, add_special_tokens=False).input_ids[0] for w in (" negative", " positive")]
right = []
for text, label in rows:
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        scores = model(input_ids=ids).logits[0, -1, words]
    right.append(float(scores.argmax() == int(label)))
assert "hanse" not in sys.modules
print(json.dumps(right))
"""


def test_its_adapter_scores_the_same_in_plain_peft(tmp_path: Path) -> None:
    words = ["rounds=1", "train.num_train_epochs=null", "train.max_steps=3", "data.test=60"]
    words += ["data.validation=0", "data.client_test=0", "model.bf16=false"]
    words += ["train.learning_rate=0.003", f"output_dir={tmp_path / 'run'}"]
    experiment = load(ROOT / "experiments" / "quickstart.yaml", words)
    folder = simulation.run(experiment)
    kept = journal.read_scores(folder, "test-classification", 1)["items"]
    assert kept != journal.read_scores(folder, "test-classification", 0)["items"]
    template = experiment.data.template
    rows = [(template.replace("{text}", row.text), row.label) for row in divide(experiment).test]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    base = locate(experiment.model.model_name_or_path)
    command = [sys.executable, "-c", PLAIN, base, str(folder / "adapter")]
    done = subprocess.run(
        [*command, str(tmp_path / "rows.json")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == kept
