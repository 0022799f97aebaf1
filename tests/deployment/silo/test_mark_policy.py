"""Marks at a silo: its own key alone is read, policies demand and refuse, and no key travels."""

from pathlib import Path
from typing import Any

import pytest

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo.endpoint import tell_remarks
from hanse.deployment.silo.job import Job, received
from hanse.deployment.silo.refusals import settings_refusals
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.journal import yaml_text
from hanse.journal.yaml_text import dump
from policy_checks import silo

KEY = OwnershipKey("silo-1", "ab" * 32)
MARKS = "ownership: {key: own.key}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of a silo, with its key."""
    owners.write(tmp_path / "home" / "own.key", KEY)
    return tmp_path / "home"


@pytest.fixture
def told(experiment_file: Path) -> dict[str, Any]:
    return yaml_text.parse(job_text(load(experiment_file)), "a job")


def reasons(job: Job, home: Path, policy: str) -> list[str]:
    more = MARKS if "require" in policy else ""
    return [*settings_refusals(silo(home, policy, more).policy, job)]


def test_a_silo_lays_its_own_mark(
    home: Path, told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    mine = silo(home, more=MARKS)
    job = received(dump(told), mine)
    own = job.experiment.for_client("silo-1").ownership
    assert own is not None and own.key == str(home / "own.key")
    assert job.experiment.ownership is None and not job.server_marks
    (home / "own.jsonl").write_text(
        "".join(f'{{"text": "film {n}", "label": "{n % 2}"}}\n' for n in range(90))
    )
    simulation = simulate(job.experiment, only=["silo-1"])
    mark = simulation.clients["silo-1"].learner.mark
    assert mark is not None and mark.key == KEY
    assert simulation.learner.mark is None
    tell_remarks(simulation, "silo-1", others=2)
    assert "at worst" not in caplog.text
    tell_remarks(simulation, "silo-1", others=999)
    assert "as many of each of 999 other silos, at worst, are 64,000 bits in" in caplog.text


@pytest.mark.parametrize("place", ["ownership", "clients"])
def test_a_server_names_no_key_at_a_silo(home: Path, told: dict[str, Any], place: str) -> None:
    other = {"key": str(home / "own.key")}
    told |= {"ownership": other} if place == "ownership" else {}
    told["clients"] = {"silo-1": {"ownership": other}} if place == "clients" else {}
    job = received(dump(told), silo(home))
    assert "own.key" not in dump(job.experiment.resolved())
    assert job.server_marks == (place == "ownership")


def test_the_servers_key_is_not_named_in_what_it_sends(experiment_file: Path) -> None:
    text = job_text(load(experiment_file, ["ownership={key: /secret/server.key}"]))
    assert "ownership:\n  key: withheld\n" in text and "secret" not in text
    silos = load(experiment_file, ["clients.silo-1.ownership={key: /secret/silo.key}"])
    with pytest.raises(UserError, match="let the silo name it by ownership in its"):
        job_text(silos)


def test_a_policy_refuses_servers_that_mark(home: Path, told: dict[str, Any]) -> None:
    marked = received(dump({**told, "ownership": {"key": "withheld"}}), silo(home))
    [reason] = reasons(marked, home, "{marks: refuse}")
    assert "its server marks the model as its own (ownership), which policy.marks refuses" in reason
    assert reasons(marked, home, "{}") == []
    assert reasons(received(dump(told), silo(home)), home, "{marks: refuse}") == []


def test_a_policy_demands_a_place_for_the_silos_mark(home: Path, told: dict[str, Any]) -> None:
    own = silo(home, "{marks: require}", MARKS)
    assert reasons(received(dump(told), own), home, "{marks: require}") == []
    told["adapter"] = {"ia3": {}}
    [reason] = reasons(received(dump(told), own), home, "{marks: require}")
    assert reason == (
        "policy.marks requires this silo's mark, and the key marks LoRA's products, and IA3 has "
        "none"
    )


@pytest.mark.parametrize(
    ("policy", "more", "sentence"),
    [
        ("{marks: require}", "", "policy.marks requires this silo's own mark, and there is none"),
        ("{marks: refuse}", MARKS, "policy.marks refuses marks, and ownership names a key"),
        ("{}", "ownership: {key: own.key, strenght: 1}\n", "did you mean 'strength'"),
    ],
)
def test_settings_that_contradict_each_other(
    home: Path, policy: str, more: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        silo(home, policy, more)
