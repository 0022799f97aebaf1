"""One set of baselines that has been trained, for all tests that only look at it."""

from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.simulation.baselines import runs
from samples import empty_report, write_experiment


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    """The folder of the baselines of the small experiment for the seeds 0 and 1."""
    file = write_experiment(tmp_path_factory.mktemp("baselines"), tiny_llama, review_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hanse.experiment.assembly.execute.write_report", empty_report)
        patch.setenv("XDG_STATE_HOME", str(file.parent / "state"))
        return runs.run(load(file), [0, 1])
