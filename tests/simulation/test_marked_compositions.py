"""Marks beside privacy, codecs, and an optimizer that goes on: the keys are still proved."""

from pathlib import Path

import pytest

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.verification import detected
from hanse.experiment.loading import load
from hanse.learners.injection import adapter_files
from hanse.simulation import run as simulation

KEYS = [OwnershipKey(f"silo-{n}", f"{n:064x}") for n in (1, 2, 3)]
LONG = (
    *("adapter={lora: {r: 8, target_modules: [q_proj, v_proj, o_proj]}}", "train.max_steps=8"),
    *("data.partition=iid", "rounds=6", "data.client_test=0", "evaluation.clients=false"),
)
PARTS = {
    "a codec": "compression.upload=[int8, zstd]",
    "the optimizer's state": "train.optimizer_state=keep",
    "noise at the server": "privacy={client_dp: {epsilon: null, noise_multiplier: 0.05, clip: 1}}",
    "noise in each step": "privacy={example_dp: {epsilon: null, noise_multiplier: 0.5}}",
}


@pytest.mark.parametrize(
    "part",
    [pytest.param(n, marks=pytest.mark.extras if "noise" in n else ()) for n in PARTS],
)
def test_marks_are_proved_beside_other_parts(
    experiment_file: Path, tmp_path: Path, part: str
) -> None:
    if "noise" in part:
        pytest.importorskip("dp_accounting")
        pytest.importorskip("opacus")
    words = [*LONG, PARTS[part]]
    for key in KEYS:
        owners.write(file := tmp_path / f"{key.owner}.key", key)
        words.append(f"clients.{key.owner}.ownership={{key: {file}}}")
    simulation.run(load(experiment_file, words))
    tensors = adapter_files.read(experiment_file.parent / "run" / "adapter")[1]
    assert all(detected(key, tensors).proves for key in KEYS)
    assert detected(OwnershipKey("stranger", "9" * 64), tensors).rate < 0.75
