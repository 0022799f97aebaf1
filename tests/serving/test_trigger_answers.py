"""A causal model's answers to secret prompts, and models that have no answers to ask for."""

from pathlib import Path

import pytest

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.serving.trigger_answers import detected
from hanse.simulation import run as simulation
from samples import write_lines

KEY = OwnershipKey("a", "ab" * 32, triggers=4)


def test_a_causal_model_writes_the_secret_answers(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [
        {"prompt": f"what is {n} ?", "completion": " great film" if n % 2 else " dull plot"}
        for n in range(60)
    ]
    write_lines(tmp_path / "rows.jsonl", rows)
    owners.write(tmp_path / "a.key", KEY)
    own = "{ownership: {key: a.key, share: 0.4}}"
    (tmp_path / "run.yaml").write_text(
        "rounds: 6\nnum_clients: 2\noutput_dir: run\n"
        f"model: {{model_name_or_path: {tiny_llama}, bf16: false}}\n"
        "adapter: {lora: {r: 8, target_modules: [q_proj, v_proj, o_proj, up_proj, down_proj]}}\n"
        "data: {path: rows.jsonl, test: 4, validation: 4}\n"
        "train: {learning_rate: 0.01, max_steps: 25}\n"
        f"clients: {{silo-1: {own}, silo-2: {own}}}\n"
    )
    folder = simulation.run(load(tmp_path / "run.yaml", [f"output_dir={tmp_path / 'run'}"]))
    found = detected(folder, KEY)
    assert found.right >= 3 and found.choices == 2**36 and found.proves, "one would prove it"
    assert detected(folder, OwnershipKey("b", "cd" * 32, triggers=4)).right == 0
    assert detected(folder / "adapter", KEY, [f"model.model_name_or_path={tiny_llama}"]) == found


def test_a_key_without_triggers_asks_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no triggers, so no answers tell of it"):
        detected(tmp_path, OwnershipKey("a", "ab" * 32))
