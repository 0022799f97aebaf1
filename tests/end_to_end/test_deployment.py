"""A server and silos as real processes on this machine, over Flower."""

import hashlib
from pathlib import Path

import pytest

from federation import federation
from hanse import loading, simulation

pytestmark = pytest.mark.end_to_end

SILOS = [f"silo-{number}" for number in range(1, 5)]
ALONE = ("num_clients=4", "cohort=off", "rounds=3")


def _digest(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _simulated(experiment: Path, folder: Path, *words: str) -> str:
    experiment_ = loading.load(experiment, [*ALONE, *words, f"output_dir={folder}"])
    return _digest(simulation.run(experiment_))


def _with_memory(*words: str) -> list[str]:
    return ["algorithm=scaffold", "train.optim=sgd", "train.momentum=0", *words]


@pytest.mark.parametrize("words", [[], _with_memory()], ids=["fedavg", "scaffold"])
def test_deployed_run_ends_in_the_adapter_of_the_simulated_one(
    experiment_file: Path, review_file: Path, tmp_path: Path, words: list[str]
) -> None:
    expected = _simulated(experiment_file, tmp_path / "simulated", *words)
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.server()
        for name in SILOS:
            made.silo(name)
        made.done()
        assert _digest(made.run) == expected


def test_silos_that_are_known_by_keys_agree_and_end_in_the_same_adapter(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    expected = _simulated(experiment_file, tmp_path / "simulated", "rounds=2")
    with federation(tmp_path, experiment_file, review_file, *ALONE, "rounds=2") as made:
        made.know_each_other(SILOS)
        made.server()
        for name in SILOS:
            made.silo(name)
        made.done()
        assert _digest(made.run) == expected
