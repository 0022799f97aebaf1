"""A silo's checks of jobs whose rule sees sums only: nothing may make a sum one silo's update."""

from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo.job import JobRefusedError, RowCounts, received
from hanse.deployment.silo.settings import SiloSettings
from hanse.experiment.loading import load
from hanse.journal.yaml_text import dump
from policy_checks import refusals, silo
from samples import ROOT

SUMS = ROOT / "tests" / "parts" / "plain_rules.py"


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


def reasons(mine: SiloSettings, told: dict[str, Any]) -> list[str]:
    """The reasons of a silo's policy against a job on 100 rows."""
    return refusals(mine.policy, received(dump(told), mine), "0" * 64, RowCounts(100, 10))


@pytest.mark.parametrize(
    ("policy", "aggregator", "said"),
    [
        ("{required: true}", "mean", "the aggregator mean reads single updates"),
        ("{colluders: 0.3}", "secagg", "has colluders 0.2, and policy.secure_sums asks for at "),
        (
            "{security: 60}",
            "secagg",
            "has security 40, and policy.secure_sums asks for at least 60",
        ),
        ("{complete: true}", "secagg", "secagg does not have neighbours: complete"),
        ("{complete: true}", {"secagg": {"neighbours": 2}}, "does not have neighbours: complete"),
        ("{security: 1}", f"{SUMS}:Sums", ":Sums has security None, and policy.secure_sums asks"),
    ],
)
def test_a_job_has_the_secure_sums_that_a_policy_asks_for(
    tmp_path: Path, told: dict[str, Any], policy: str, aggregator: Any, said: str
) -> None:
    told["aggregator"] = aggregator
    allowed = f"aggregators: [mean, secagg, '{SUMS}:Sums']"
    free = silo(tmp_path / "free", f"{{{allowed}}}")
    assert reasons(free, told) == []
    [reason] = reasons(silo(tmp_path / "a", f"{{{allowed}, secure_sums: {policy}}}"), told)
    assert said in reason


@pytest.mark.parametrize("aggregator", ["mean", {"secagg": {"neighbours": "complete"}}])
def test_limits_of_secure_sums_concern_no_other_rule(
    tmp_path: Path, told: dict[str, Any], aggregator: Any
) -> None:
    told["aggregator"] = aggregator
    limits = "{colluders: 0.2, security: 40, complete: true}"
    assert reasons(silo(tmp_path / "a", f"{{secure_sums: {limits}}}"), told) == []


@pytest.mark.parametrize(
    ("aggregator", "metrics", "refused"),
    [("secagg", "steps", True), ("secagg", "loss", False), ("mean", "steps", False)],
)
def test_a_number_that_is_summed_must_be_allowed_to_leave(
    tmp_path: Path, told: dict[str, Any], aggregator: str, metrics: str, refused: bool
) -> None:
    told["aggregator"] = aggregator
    mine = silo(tmp_path / "a", f"{{metrics: [{metrics}]}}")
    said = "the aggregator secagg adds up the loss of all silos, which policy.metrics does not let"
    assert any(said in reason for reason in reasons(mine, told)) is refused
