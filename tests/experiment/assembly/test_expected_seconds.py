"""A plan's expected seconds, where they could not be compared: refused before a model is loaded."""

from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load

NO_MODEL = "model.model_name_or_path=owner/nowhere"
PLANNED = "algorithm={fedpipe: {expected_seconds: {silo-1: 3.0}}}"


@pytest.mark.parametrize(
    "simulated",
    ["device=laptop", "clients={silo-1: {device: laptop}}", "links={seconds_per_step: 1}"],
)
def test_simulated_seconds_are_not_compared_with_measured_ones(
    experiment_file: Path, simulated: str
) -> None:
    experiment = load(experiment_file, [NO_MODEL, PLANNED, simulated])
    sentence = "seconds of silo-1, whose seconds are simulated.*; leave expected_seconds out, or"
    with pytest.raises(UserError, match=sentence):
        simulate(experiment)


def test_seconds_of_a_client_that_does_not_exist_are_refused(experiment_file: Path) -> None:
    planned = PLANNED.replace("silo-1", "silo-77")
    with pytest.raises(UserError, match="names silo-77, which is no client of this run"):
        simulate(load(experiment_file, [NO_MODEL, planned]))
