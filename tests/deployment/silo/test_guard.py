"""A silo as a hostile server meets it: within its policy, and agreed, or not at all."""

import json
import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo import settings
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import Job, JobRefusedError, RowCounts
from hanse.deployment.silo.settings import SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.messages import Reply, Request, Update
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import hash_of
from hanse.security import kits, members
from hanse.security.kits import ServerKit, SiloKit
from hanse.security.signatures import Outbox
from samples import ROOT

TEMPLATE = r'template: "Review: {text}\nSentiment:"'  # what the experiment has, too


@dataclass
class World:
    """A server with its kit, silo-1 with its own, and what silo-1 was made to do."""

    home: Path
    told: dict[str, Any]
    trained: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        kits.init(self.home / "kit", [], 30)
        for name in ("silo-1", "silo-2"):
            kits.enrol(self.home / "kit", kits.make_keys(self.home / name, name))
            for file in ("ca.crt", "server.pub"):
                (self.home / name / file).write_bytes((self.home / "kit" / file).read_bytes())
        (self.home / "rows.jsonl").write_text('{"text": "a film", "label": "good"}\n')

    @property
    def server(self) -> ServerKit:
        return kits.open_server(self.home / "kit")

    @property
    def kit(self) -> SiloKit:
        return kits.open_silo(self.home / "silo-1", "silo-1")

    def trust(self) -> None:
        (self.home / "members.pub").write_text(members.written(self.server))
        members.trust(self.home / "silo-1", self.home / "members.pub")

    def silo(self, policy: str = "{}") -> SiloSettings:
        file = self.home / "silo.yaml"
        file.write_text(
            "name: silo-1\nserver: fl.example.org:8000\nkit: silo-1\n"
            f"data: {{path: rows.jsonl, {TEMPLATE}}}\nstate: state\npolicy: {policy}\n"
        )
        return settings.load(file)

    def gate(self, policy: str = "{}") -> Guard:
        return Guard(self.silo(policy), self.kit, "run")

    def job(self) -> bytes:
        return dump(self.told).encode()

    def request(self, kind: str = "train", round: int = 1) -> bytes:
        return Request(kind, round).pack()

    def respond(self, message: bytes) -> bytes:
        """What a silo does with a request that it takes."""
        request = Request.parse(message)
        self.trained.append(request.round)
        numbers = {"loss": 1.0, "secret": 2.0}
        return Reply("silo-1", request.kind, request.round, Update({}, numbers)).pack()

    def log(self) -> list[str]:
        file = self.home / "state" / "refusals.jsonl"
        return [json.loads(line)["reason"] for line in file.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path, experiment_file: Path) -> World:
    return World(tmp_path / "world", load(experiment_file).resolved())


def accept(gate: Guard, message: bytes, model: str = "") -> Job:
    """Let the guard check and accept a job on 100 rows."""
    job = gate.check_job(message, model)
    gate.accept(job, RowCounts(100, 0))
    return job


def test_few_rows_are_refused_when_they_are_counted(world: World) -> None:
    gate = world.gate()
    job = gate.check_job(world.job())
    with pytest.raises(JobRefusedError, match=r"fewer rows than policy\.min_examples"):
        gate.accept(job, RowCounts(1, 0))
    message = gate.answer(world.request(), world.respond)
    assert message is not None and "has taken no job" in Reply.parse(message).error


def test_a_job_and_its_rounds(world: World) -> None:
    gate = world.gate()
    job = accept(gate, world.job())
    assert job.experiment.data.path == str(world.home / "rows.jsonl")
    message = gate.answer(world.request(), world.respond)
    assert message is not None
    assert Reply.parse(message).update.numbers == {"loss": 1.0}
    assert world.trained == [1]


def test_a_job_against_the_policy_is_refused_before_rows_are_read(world: World) -> None:
    with pytest.raises(JobRefusedError, match="3 rounds, more than 1"):
        world.gate("{max_rounds: 1}").check_job(world.job())
    world.told["algorithm"] = {"evil.py:Evil": {}}
    with pytest.raises(JobRefusedError, match="runs no code that a server names"):
        world.gate().check_job(world.job())
    assert len(world.log()) == 2


def test_another_file_of_a_part_than_the_servers_is_refused(world: World) -> None:
    """The silo runs its own copy, which must be what the server runs."""
    code = "from hanse.federation.algorithms.fedavg import FedAvg as Mine\n"
    own = world.home / "mine.py"
    own.write_text(code)
    policy = "{algorithms: [mine.py:Mine]}"
    world.told["algorithm"] = {"/there/mine.py:Mine": {}}
    same = {"mine.py:Mine": sha256(code.encode()).hexdigest()}
    world.gate(policy).check_job(world.job(), code=same)
    for other in ({"mine.py:Mine": "5e" * 32}, {}, None):
        with pytest.raises(JobRefusedError, match=r"another file for mine\.py:Mine than"):
            world.gate(policy).check_job(world.job(), code=other)


def test_another_base_model_than_the_servers_is_refused_and_both_are_named(world: World) -> None:
    own = hash_of(world.told["model"]["model_name_or_path"])
    assert own is not None
    accept(world.gate(), world.job(), own)
    with pytest.raises(JobRefusedError, match=f"is {own[:16]}… here, and {'5e' * 8}… there"):
        accept(world.gate(), world.job(), "5e" * 32)


def test_what_is_no_request_gets_no_reply(world: World) -> None:
    gate = world.gate()
    accept(gate, world.job())
    for noise in (b"noise", b""):
        assert gate.answer(noise, world.respond) is None
    assert world.trained == [] and len(world.log()) == 2


def test_rounds_beyond_the_job_and_before_it_are_refused(world: World) -> None:
    gate = world.gate()
    early = gate.answer(world.request(), world.respond)
    accept(gate, world.job())
    late = gate.answer(world.request(round=4), world.respond)
    for message, said in ((early, "has taken no job"), (late, "the job has 3 rounds")):
        assert message is not None
        assert said in Reply.parse(message).error
    assert world.trained == []


def test_a_silo_that_knows_others_states_before_it_trains(world: World) -> None:
    world.trust()
    gate = world.gate()
    accept(gate, world.job())
    for kind, said in (("train", ""), ("agreed", "trains only if 1 silos")):
        message = gate.answer(world.request(kind), world.respond)
        assert message is not None
        assert said in Reply.parse(message).error
    assert world.trained == [] and "trains only if 1 silos" in world.log()[-1]


@pytest.mark.parametrize("word", ["require", "always"])
def test_a_silo_that_must_agree_and_knows_nobody_refuses(world: World, word: str) -> None:
    with pytest.raises(JobRefusedError, match=r"run `hanse kit trust members.pub`"):
        accept(world.gate(f"{{agreement: {word}}}"), world.job())


def test_silos_cannot_agree_on_tensors_of_their_own_layouts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    part = ROOT / "tests" / "parts" / "layout_plan.py"
    world.trust()
    world.told["algorithm"] = {f"{part}:LayoutPlan": {}}
    code = {"layout_plan.py:LayoutPlan": sha256(part.read_bytes()).hexdigest()}
    for word in ("auto", "require"):
        gate = world.gate(f"{{algorithms: ['{part}:LayoutPlan'], agreement: {word}}}")
        job = gate.check_job(world.job(), code=code)
        if word == "auto":
            gate.accept(job, RowCounts(100, 0))
            reply = gate.answer(world.request(), world.respond)
            assert reply is not None and Reply.parse(reply).update.numbers == {"loss": 1.0}
            assert "tensors of its own layout, which no two can compare" in caplog.text
        else:
            with pytest.raises(JobRefusedError, match=r"set policy\.agreement to auto or never"):
                gate.accept(job, RowCounts(100, 0))


def test_silos_cannot_agree_on_parts_of_an_adapter_that_grows(world: World) -> None:
    world.trust()
    world.told["algorithm"] = {"fedadapter": {}}
    gate = world.gate("{agreement: require}")
    with pytest.raises(JobRefusedError, match=r"fedadapter sends each silo .* auto or never"):
        gate.accept(gate.check_job(world.job()), RowCounts(100, 0))


def test_a_rule_that_needs_keys_of_silos_is_refused_without_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mean, "needs_identity", True)
    alone = Guard(world.silo().model_copy(update={"kit": None}), None, "run")
    for gate, unknown in ((alone, "silo-1, silo-2, silo-3"), (world.gate(), "silo-2, silo-3")):
        with pytest.raises(JobRefusedError, match=f"mean, and does not have those of {unknown};"):
            gate.check_job(world.job())
    world.trust()
    with pytest.raises(JobRefusedError, match=r"of silo-3; .* run `hanse kit trust members\.pub`"):
        world.gate().check_job(world.job())
    world.told["num_clients"] = 2
    assert accept(world.gate(), world.job()).participants == ("silo-1", "silo-2")
    assert len(world.log()) == 3


def test_a_server_on_this_machine_needs_no_kit(world: World) -> None:
    silo = world.silo().model_copy(update={"kit": None, "server": "127.0.0.1:8000"})
    gate = Guard(silo, None, "run")
    accept(gate, dump(world.told).encode())
    message = gate.answer(Request("train", 1).pack(), world.respond)
    assert message is not None and Reply.parse(message).update.numbers == {"loss": 1.0}
    with pytest.raises(JobRefusedError, match="not UTF-8"):
        accept(gate, b"\xff")


def test_a_model_that_cannot_be_used_is_explained_to_its_owner_alone(world: World) -> None:
    """Else a server could ask what lies in which folder of the silo."""
    folder = world.home / "private"
    folder.mkdir()
    for place in (folder, world.home / "nothing"):
        world.told["model"]["model_name_or_path"] = str(place)
        with pytest.raises(JobRefusedError, match="its own log says why"):
            accept(world.gate(), world.job())
    assert "has no config.json" in world.log()[0] and "there is no model" in world.log()[2]


def test_a_refusal_of_the_second_step_answers_the_first(world: World) -> None:
    world.trust()
    gate = world.gate()
    accept(gate, world.job())
    for round in (1, 4):
        message = gate.answer(world.request("agreed", round), world.respond)
        assert message is not None
        assert Reply.parse(message).kind == "train"
    assert "was not asked to train in round 1" in world.log()[0]
    assert "the job has 3 rounds" in world.log()[1]


def test_a_rule_that_compares_requests_needs_no_second_step(world: World) -> None:
    world.trust()
    rule = "compared_requests.py:ComparedRequests"
    own = ROOT / "tests" / "parts" / "compared_requests.py"
    world.told["aggregator"] = rule
    world.told["num_clients"], world.told["silo_names"] = 2, ["silo-1", "silo-2"]
    code = {rule: sha256(own.read_bytes()).hexdigest()}
    for agreement in ("auto", "require", "never"):
        policy = f"{{aggregators: ['{own}:ComparedRequests'], agreement: {agreement}}}"
        gate = world.gate(policy)
        gate.accept(gate.check_job(world.job(), code=code), RowCounts(100, 0))
        message = gate.answer(world.request(), world.respond)
        assert message is not None and Reply.parse(message).kind == "train"
    assert world.trained == [1, 1, 1]


def test_a_digest_of_the_job_covers_run_settings_and_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(run: str = "run") -> str:
        gate = Guard(world.silo(), world.kit, run)
        gate.check_job(world.job())
        return gate.job_digest

    first = digest()
    assert len(first) == 64 and digest() == first and digest("another") != first
    world.told["seed"] = 99
    second = digest()
    monkeypatch.setattr("hanse.deployment.silo.guard.hash_of", lambda name: "5e" * 32)
    assert len({first, second, digest()}) == 3


def test_only_its_owner_reads_what_a_silo_keeps(world: World) -> None:
    """Whatever the umask says: which runs, which models, which messages, and why not."""
    world.trust()
    gate, resident = world.gate(), SiloWorker(world.silo(), world.kit)
    before = os.umask(0)
    try:
        accept(gate, world.job())
        assert gate.answer(world.request(), world.respond) is not None
        gate.answer(world.request(round=9), world.respond)  # refused, which is noted
        outbox = Outbox("server", world.server.signing)
        resident.answer(outbox.request(world.job(), "run", 0, "silo-1")[0])
    finally:
        os.umask(before)
    state = world.home / "state"
    kept = {path.name.split("-")[0]: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert kept.keys() >= {"asked", "stated", "letters", "refusals.jsonl"}
    assert set(kept.values()) == {0o600} and state.stat().st_mode & 0o777 == 0o700


def _merged(told: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    sections = {k: {**told[k], **v} if k in ("data", "train") else v for k, v in change.items()}
    return {**told, **sections}


HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a forbidden model": (f"{{models: ['{'1' * 64}']}}", {}, "which it does not allow"),
    "no differential privacy": ("{privacy: {epsilon: 8}}", {}, "the job promises none"),
    "too many rounds": ("{max_rounds: 50}", {"rounds": 51}, "51 rounds, more than 50"),
    "steps a hundred times": (
        "{max_steps: 3}",
        {"train": {"max_steps": 300}},
        "300 steps in a round, more than 3",
    ),
    "code": ("{}", {"algorithm": {"evil.py:Evil": {}}}, "runs no code that a server names"),
    "raw answers on its rows": (
        "{}",
        {"objective": "sft", "evaluation": {"tasks": [{"generation": {"costly": False}}]}},
        "the task generation is not among",
    ),
    "a query on rows": ("{}", {"data": {"filter": {"name": "Ada"}}}, "takes the settings of its"),
    "another experiment at the top": (
        "{max_steps: 3}",
        {
            "adapter": {"from": "/home/private"},
            "train": {"max_steps": 300},
            "clients": {"silo-1": {"adapter": {"lora": {"r": 4}}, "data": {"template": "{text}"}}},
        },
        "300 steps in a round, more than 3",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_job_that_the_servers_own_key_has_signed_is_refused(world: World, what: str) -> None:
    """The server is whom the silo knows, and nothing of its rows is read, trained or answered."""
    policy, change, said = HOSTILE[what]

    world.told = _merged(world.told, change)
    gate = world.gate(policy)
    with pytest.raises(JobRefusedError, match=said):
        gate.check_job(world.job())
    assert said in world.log()[-1] and "/home/private" not in world.log()[-1]
    message = gate.answer(world.request(), world.respond)
    assert message is not None and world.trained == []
    reply = Reply.parse(message)
    assert "has taken no job" in reply.error and not reply.update.tensors


def test_other_names_of_a_run_free_no_limit_at_the_gate(world: World) -> None:
    policy = "{max_runs_per_day: 2, max_tries: 1}"
    taken = 0
    for run in ("a", "b", "c", "d"):
        gate = Guard(world.silo(policy), world.kit, run)
        try:
            accept(gate, world.job())
        except JobRefusedError as error:
            refusal = str(error)
            continue
        taken += 1
    assert taken == 2 and "2 others began in the last 24 hours" in refusal


def test_a_word_on_an_agreement_is_nothing_to_a_silo_without_one(world: World) -> None:
    """It is not counted, so by it a silo could be made to work without end."""
    gate = world.gate("{agreement: never}")
    accept(gate, world.job())
    message = gate.answer(world.request("agreed"), world.respond)
    assert message is not None and world.trained == []
    assert "silo-1 takes no part in an agreement in this run." in world.log()


def test_a_job_that_is_refused_costs_no_hash_of_the_model_and_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr("hanse.deployment.silo.guard.hash_of", lambda name: hashed.append(name))
    policy = "{max_rounds: 1, max_requests_per_day: 7}"
    for number in range(9):
        gate = Guard(world.silo(policy), world.kit, f"run{number // 2}")
        settings = dump(world.told if number % 3 else {**world.told, "rounds": "many"}).encode()
        with pytest.raises(JobRefusedError) as caught:
            accept(gate, settings)
        assert ("refuses this job unread: 7 others came" in str(caught.value)) == (number >= 7)
    assert hashed == []
