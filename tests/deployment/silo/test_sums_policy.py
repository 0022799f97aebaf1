"""A silo's checks of jobs whose rule sees sums only: nothing may make a sum one silo's update."""

from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo.job import JobRefusedError, received
from hanse.experiment.loading import load
from hanse.journal.yaml_text import dump
from policy_checks import silo


@pytest.fixture
def told(experiment_file: Path) -> dict[str, Any]:
    """A job with secure sums, as a server sends it."""
    return load(experiment_file, ["aggregator=secagg"]).resolved()


@pytest.mark.parametrize(
    "over",
    [
        {"train": {"learning_rate": 1e-30}},
        {"train": None},
        {"adapter": "none"},
        {"model": {"max_length": 8}},
        {"data": {"client_test": 0.99}},
        {"data": {1: 2}},
        {"data": "nowhere"},
        {"what": "ever"},
    ],
)
def test_other_settings_for_another_silo_are_refused(
    tmp_path: Path, told: dict[str, Any], over: dict[str, Any]
) -> None:
    told["clients"] = {"silo-2": over}
    with pytest.raises(JobRefusedError, match=r"clients.silo-2 has .* of its own, but SecAgg"):
        received(dump(told), silo(tmp_path / "a"))
    told["aggregator"] = "mean"
    received(dump(told), silo(tmp_path / "b"))


def test_a_million_letters_are_not_repeated(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {"silo-2": {"data": {"x" * 100_000: 1}}}
    with pytest.raises(JobRefusedError) as refusal:
        received(dump(told), silo(tmp_path / "a"))
    assert len(str(refusal.value)) < 500


def test_silos_of_a_sum_have_rows_of_their_own(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {f"silo-{n}": {"data": {"path": f"/secret/{n}"}} for n in (1, 2, 3)}
    assert received(dump(told), silo(tmp_path / "a")).cohort == 3
