"""hanse server and hanse join: what they refuse before anything is started."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo import join, settings
from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.security import kits, members

Hanse = Callable[..., Any]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests after these may ask a hub, which a silo that joins forbids its whole process."""
    monkeypatch.setattr(join, "_offline", lambda: None)


def test_server_that_others_could_reach_needs_a_kit(hanse: Hanse, experiment_file: Path) -> None:
    done = hanse("server", experiment_file, "--host", "0.0.0.0")
    assert done.code == 2
    assert "0.0.0.0 can be reached from other machines" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_silo_of_another_machine_needs_a_kit(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    file = tmp_path / "silo.yaml"
    file.write_text("name: a\nserver: far.example:8000\ndata: {path: rows.jsonl}\nstate: state\n")
    done = hanse("join", file)
    assert done.code == 2 and "which is not this machine" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clients={a: {data: {path: a.jsonl}}}"], "the server has no rows that it could hold out"),
        (
            ["clients={a: {data: {path: a.jsonl}}}", "data.test=0", "data.validation=0"],
            "list them in data.labels",
        ),
        (["data.pooled=true"], "data.pooled puts all rows in one place"),
        (["deployment.quorum=0"], "deployment.quorum"),
        (["deployment.deadlin=3"], "did you mean 'deadline'"),
    ],
)
def test_what_cannot_be_deployed_is_said_in_a_sentence(
    hanse: Hanse, experiment_file: Path, words: list[str], sentence: str
) -> None:
    done = hanse("server", experiment_file, *words)
    assert done.code == 2
    assert sentence in done.err


def test_part_that_no_policy_can_allow_is_refused(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "alike.py"
    file.write_text(
        "from dataclasses import dataclass\n\n"
        "from hanse.data.partitioners.iid import Iid\n\n\n"
        "@dataclass(frozen=True)\nclass Alike(Iid):\n    pass\n"
    )
    done = hanse("server", experiment_file, f"data.partition={file}:Alike")
    assert done.code == 2
    assert "no setting of a silo's policy allows a partitioner of its own" in done.err


def test_rule_that_needs_keys_of_silos_needs_a_kit(
    hanse: Hanse, experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mean, "needs_identity", True)
    done = hanse("server", experiment_file)
    assert done.code == 2 and "the aggregator mean needs silos that can identify" in done.err
    assert "name the kit by --kit" in done.err and not Path("run").exists()


def test_silo_that_is_not_enrolled_is_named(hanse: Hanse, experiment_file: Path) -> None:
    assert hanse("kit", "init", "--kit", "kit").code == 0
    done = hanse("server", experiment_file, "--kit", "kit")
    assert done.code == 2 and "silo-1, silo-2, silo-3 of this experiment are not" in done.err


def test_deployed_run_is_not_resumed_as_a_simulated_one(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.yaml").write_text("rounds: 1\n")
    (tmp_path / "run" / "deployed-as").write_text("abc")
    done = hanse("resume", "run")
    assert done.code == 2 and "`hanse server` command that began it" in done.err


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """The kit of the silo a, which knows the server and nobody else."""
    kits.init(tmp_path / "hub", [], 30)
    for name in ("a", "b"):
        kits.enrol(tmp_path / "hub", kits.make_keys(tmp_path / name, name))
    for file in ("ca.crt", "server.pub"):
        shutil.copy(tmp_path / "hub" / file, tmp_path / "a" / file)
    (tmp_path / "members.pub").write_text(members.written(kits.open_server(tmp_path / "hub")))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    return tmp_path / "a"


@pytest.mark.parametrize(
    ("policy", "knows", "said"),
    [
        ("{}", False, "the agreement is off, since the kit knows no other silo"),
        ("{}", True, "the agreement is on: 1 others of 1"),
        ("{min_cohort: 4}", True, "asks 3 others to agree, and the kit knows 1"),
        ("{agreement: never}", True, "the agreement is off, by policy.agreement"),
        ("{agreement: require}", True, "the agreement is on"),
        ("{agreement: require}", False, "a requires an agreement, and its kit knows no other"),
    ],
)
def test_a_silo_says_at_its_start_whether_it_agrees_with_others(
    kit: Path,
    policy: str,
    knows: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(join, "_join", lambda *_: None)
    if knows:
        members.trust(kit, kit.parent / "members.pub")
    file = kit.parent / "silo.yaml"
    file.write_text(
        "name: a\nserver: far.example:8000\nkit: a\ndata: {path: rows.jsonl}\nstate: state\n"
        f"policy: {policy}\n"
    )
    if said.startswith("a requires"):
        with pytest.raises(UserError, match=said):
            join.join(settings.load(file))
    else:
        join.join(settings.load(file))
        assert said in caplog.text
