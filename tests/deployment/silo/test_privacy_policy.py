"""A silo's demands on differential privacy, which it checks by its own account of a job."""

from pathlib import Path
from typing import Any

import pytest

from hanse import errors
from hanse.deployment.silo.job import RowCounts, received
from hanse.deployment.silo.refusals import settings_refusals
from hanse.experiment.loading import load
from hanse.journal.yaml_text import dump
from policy_checks import refusals, silo


@pytest.fixture
def told(experiment_file: Path) -> dict[str, Any]:
    """A job of three rounds, as a server sends it."""
    return load(experiment_file).resolved()


def reasons(home: Path, told: dict[str, Any], asked: str, offered: dict[str, Any]) -> list[str]:
    """The reasons of a policy against a job with these settings of client_dp."""
    told["privacy"] = {"client_dp": offered} if offered else None
    mine = silo(home / "a", f"{{privacy: {asked}}}")
    return list(settings_refusals(mine.policy, received(dump(told), mine)))


@pytest.mark.extras
@pytest.mark.parametrize(
    ("asked", "offered", "said"),
    [
        ("{}", {}, ""),
        ("{}", {"epsilon": None, "noise_multiplier": 0.01}, ""),
        ("{epsilon: 8}", {"epsilon": 8}, ""),
        (
            "{epsilon: 8}",
            {"epsilon": 9},
            "it would come to ε = ",
        ),
        ("{epsilon: 8}", {"epsilon": 2, "delta": 1e-4}, "its δ is 0.0001, and policy.privacy asks"),
        ("{epsilon: 8, delta: 1e-4}", {"epsilon": 2, "delta": 1e-4}, ""),
        ("{epsilon: 8}", {"epsilon": None, "noise_multiplier": 0}, "come to ε = unbounded"),
        ("{noise_multiplier: 2}", {"epsilon": None, "noise_multiplier": 2}, ""),
        (
            "{noise_multiplier: 2}",
            {"epsilon": None, "noise_multiplier": 1.9},
            "its noise multiplier is below 2, which policy.privacy asks for",
        ),
        ("{clip: 1}", {"clip": 1}, ""),
        ("{clip: 1}", {"clip": 2}, "the clip norm of ClientDp is 2, and policy.privacy asks for"),
        ("{clip: 1}", {"quantile": 0.5, "count_noise": 9.0}, "the clip norm of ClientDp is not fi"),
        ("{unit: silo}", {"epsilon": 4}, ""),
        ("{unit: row}", {"epsilon": 4}, ""),
        (
            "{epsilon: 8}",
            {},
            "differential privacy (ε ≤ 8 at δ ≤ 1e-05), and the job promises none",
        ),
        ("{unit: row, clip: 2}", {}, "privacy (for a row, clip ≤ 2), and the job promises none"),
    ],
)
def test_a_job_has_the_privacy_that_a_policy_asks_for(
    tmp_path: Path, told: dict[str, Any], asked: str, offered: dict[str, Any], said: str
) -> None:
    pytest.importorskip("dp_accounting")
    found = reasons(tmp_path, told, asked, offered)
    assert len(found) == bool(said) and all(said in reason for reason in found)


def test_the_number_that_a_clip_norm_follows_may_leave(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    """Else the server would take each update for a clipped one."""
    told["privacy"] = {"client_dp": {"quantile": 0.5}}
    for metrics, said in (("", 0), ("metrics: [loss, below_clip]", 0), ("metrics: [loss]", 1)):
        mine = silo(tmp_path / "a", f"{{{metrics}}}")
        found = list(settings_refusals(mine.policy, received(dump(told), mine)))
        assert len(found) == said and all("needs the number below_clip" in each for each in found)


@pytest.mark.extras
def test_noise_that_adds_up_in_sums_is_judged_too(tmp_path: Path, told: dict[str, Any]) -> None:
    pytest.importorskip("dp_accounting")
    told["aggregator"] = "secagg"
    told["privacy"] = {"distributed_gaussian": {"epsilon": 8, "clip": 2}}
    for asked, said in (
        ("{unit: silo, epsilon: 8, clip: 2}", []),
        (
            "{epsilon: 7}",
            [" at δ = 1e-05 for a silo, in 3 releases, and policy.privacy asks for at most 7"],
        ),
        ("{clip: 1}", ["the clip norm of DistributedGaussian is 2"]),
    ):
        mine = silo(tmp_path / "a", f"{{privacy: {asked}}}")
        found = list(settings_refusals(mine.policy, received(dump(told), mine)))
        assert len(found) == len(said) and all(a in b for a, b in zip(said, found, strict=True))


@pytest.mark.extras
def test_more_rounds_cost_more(tmp_path: Path, told: dict[str, Any]) -> None:
    pytest.importorskip("dp_accounting")
    offered = {"epsilon": None, "noise_multiplier": 2.0}
    assert not reasons(tmp_path, told, "{epsilon: 5}", offered)
    told["rounds"] = 9
    [reason] = reasons(tmp_path, told, "{epsilon: 5}", offered)
    assert "in 9 releases, and policy.privacy asks for at most 5" in reason


def test_so_many_rounds_that_nothing_could_be_counted(tmp_path: Path, told: dict[str, Any]) -> None:
    told["rounds"] = 10**6
    offered = {"epsilon": None, "noise_multiplier": 2.0}
    [reason] = reasons(tmp_path, told, "{epsilon: 5}", offered)
    assert "rounds, more than 1,000" in reason


@pytest.mark.extras
@pytest.mark.parametrize(
    ("asked", "offered", "said"),
    [
        ("{unit: row, epsilon: 8, clip: 1}", {"noise_multiplier": 20}, ""),
        (
            "{unit: silo}",
            {"noise_multiplier": 20},
            "asks for privacy of a whole silo, and the job's is that",
        ),
        (
            "{epsilon: 8}",
            {"noise_multiplier": 0.5},
            "it would come to a larger ε for its rows, and policy.pr",
        ),
        (
            "{clip: 1}",
            {"noise_multiplier": 20, "clip": 2},
            "the clip norm of ExampleDp is 2, and policy.privacy asks for",
        ),
        (
            "{noise_multiplier: 50}",
            {"noise_multiplier": 20},
            "its noise multiplier is below 50, which polic",
        ),
    ],
)
def test_the_privacy_of_rows_is_judged_once_they_are_counted(
    tmp_path: Path, told: dict[str, Any], asked: str, offered: dict[str, Any], said: str
) -> None:
    pytest.importorskip("dp_accounting")
    told["privacy"] = {"example_dp": {"epsilon": None, **offered}}
    mine = silo(tmp_path / "a", f"{{privacy: {asked}}}")
    job = received(dump(told), mine)
    assert bool([*settings_refusals(mine.policy, job)]) == ("clip norm" in said)
    found = refusals(mine.policy, job, "0" * 64, RowCounts(100, 10))
    assert len(found) == bool(said) and all(said in reason for reason in found)


def test_without_an_accountant_it_says_so_in_one_sentence(
    tmp_path: Path, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    [reason] = reasons(tmp_path, told, "{epsilon: 8}", {"epsilon": None, "noise_multiplier": 3.0})
    assert reason == (
        "its policy.privacy asks for differential privacy, and here the ε of a job needs the "
        'package dp_accounting, which is not installed; run pip install "hanse[privacy]", or ask '
        "for no privacy"
    )
