"""A silo's answers to a server's envelopes, without a network between them."""

import json
import logging
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import hanse
from hanse.deployment.envelopes import HELLO, BadEnvelopeError, Envelope, Envelopes, SiloReply
from hanse.deployment.silo.enforcement import WITHHELD
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import hash_of
from hanse.observability.json_logs import log_file
from hanse.security import kits as identity
from hanse.security.kits import ServerKit, SiloKit
from hanse.security.signatures import Inbox, Outbox, Untrusted


@pytest.fixture
def server(experiment_file: Path) -> Simulation:
    return simulate(load(experiment_file, ["clients_per_pass=off"]))


@pytest.fixture
def envelope(server: Simulation) -> Envelope:
    values = server.experiment.resolved() | {"output_dir": None}
    model = hash_of(server.experiment.model.model_name_or_path)
    return Envelope("a1", dump(values), server.dataset.digest, model or "")


@pytest.fixture
def resident(review_file: Path, tmp_path: Path) -> SiloWorker:
    rows, state = Rows(path=str(review_file)), tmp_path / "state"
    policy = Policy(data_settings=("template", "labels"), count_rounding=1, min_examples=1)
    return SiloWorker(
        SiloSettings(name="silo-1", server="127.0.0.1:1", data=rows, state=state, policy=policy)
    )


def _train(server: Simulation) -> bytes:
    return Request("train", 1, 0, Instruction(server.learner.initial())).pack()


def test_who_is_there_is_said_before_anything_is_loaded(resident: SiloWorker) -> None:
    answer = SiloReply.parse(resident.answer(HELLO))
    assert (answer.name, answer.profile, resident.loaded) == ("silo-1", None, 0)


def test_a_request_that_comes_again_is_answered_alike_and_trained_once(
    resident: SiloWorker, envelope: Envelope, server: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(envelope, request=_train(server)).pack()
    first, again = (SiloReply.parse(resident.answer(asked)) for _ in range(2))
    assert first.error == ""
    assert Reply.parse(first.body).update.numbers["steps"] == 3
    assert again == first
    assert caplog.text.count("answered train") == 1
    assert resident.loaded == 1


def test_a_run_is_loaded_again_if_anything_but_the_request_has_changed(
    resident: SiloWorker, envelope: Envelope, server: Simulation
) -> None:
    for asked in (envelope, replace(envelope, request=_train(server)), envelope):
        resident.answer(asked.pack())
    assert resident.loaded == 1
    other = SiloReply.parse(resident.answer(replace(envelope, model="5e" * 32).pack()))
    assert "silo-1 has another base model than the server" in other.error
    assert resident._active is None
    resident.answer(replace(envelope, precision="{}").pack())
    assert resident.loaded == 2


def test_an_aggregators_client_half_knows_the_job_and_the_least_cohort(
    resident: SiloWorker, envelope: Envelope
) -> None:
    jobs: list[str] = []
    for changes in ({}, {"run": "a2"}, {"precision": "{}"}, {"public": "0" * 64}, {"code": "{}"}):
        resident._active = None
        resident.answer(replace(envelope, **changes).pack())
        active = resident._active
        assert active is not None
        jobs.append(active.endpoint.job)
        assert jobs[-1] == active.guard.job_digest
        assert active.endpoint.least_cohort == resident.silo.policy.min_cohort == 2
        assert active.endpoint.quorum == active.endpoint.clients == 3  # all of the experiment
        assert active.endpoint.participants == ("silo-1", "silo-2", "silo-3")
        assert active.endpoint.kept is not None
    assert len({*jobs}) == 5 and all(jobs)


class Refusing(Mean):
    """A rule whose clients refuse what they are asked."""

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        if kind == "rows":
            raise UserError("a text that quotes a row")
        raise RefusalError("silo-1 takes no part in this sum.")


def test_the_reason_of_an_aggregators_client_half_may_leave_and_is_recorded(
    resident: SiloWorker, envelope: Envelope
) -> None:
    resident.answer(envelope.pack())
    active = resident._active
    assert active is not None
    active.endpoint.method = replace(active.endpoint.method, aggregator=Refusing())
    said = {}
    for kind in ("rows", "keys"):
        asked = replace(envelope, request=Request(kind, 1).pack())
        said[kind] = Reply.parse(SiloReply.parse(resident.answer(asked.pack())).body).error
    assert said == {"rows": WITHHELD, "keys": "silo-1 takes no part in this sum."}
    lines = (resident.silo.state / "refusals.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["reason"] == said["keys"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "9.8"}, f"the server has hanse 9.8, this silo {hanse.__version__}"),
        ({"model": "5e" * 32}, "silo-1 has another base model than the server"),
        ({"rows": "5e" * 32}, "are not those that the server divides"),
        ({"settings": "rounds: [1"}, "the server's experiment"),
    ],
)
def test_what_does_not_fit_is_refused_and_said(
    resident: SiloWorker, envelope: Envelope, changed: dict[str, str], said: str
) -> None:
    answer = SiloReply.parse(resident.answer(replace(envelope, **changed).pack()))
    assert said in answer.error
    assert answer.profile is None
    assert resident.refused == 1
    assert said in (resident.silo.state / "refusals.jsonl").read_text()


def test_all_that_is_logged_of_a_request_has_its_name(
    resident: SiloWorker,
    envelope: Envelope,
    server: Simulation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(envelope, request=_train(server)).pack()
    with log_file(tmp_path, resident.about):
        for _ in range(2):
            resident.answer(asked)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {row["request_id"] for row in rows} == {"a1/1/silo-1/train"}
    events = [row["event"] for row in rows if "event" in row]
    assert events == ["received", "trained", "encoded", "replied", "received", "replied"]


@pytest.mark.parametrize("request_round", [1, 99])
def test_a_refusal_of_a_request_has_its_name(
    resident: SiloWorker, envelope: Envelope, server: Simulation, request_round: int
) -> None:
    """The round does not exist in the job; or the job itself is refused when the request comes."""
    request = replace(Request.parse(_train(server)), round=request_round)
    other = {"model": "5e" * 32} if request_round == 1 else {}
    answer = SiloReply.parse(
        resident.answer(replace(envelope, request=request.pack(), **other).pack())
    )
    assert answer.error or Reply.parse(answer.body).error
    [line] = map(json.loads, (resident.silo.state / "refusals.jsonl").read_text().splitlines())
    assert line["request_id"] == f"a1/{request_round}/silo-1/train"


def test_what_is_no_envelope_is_refused(resident: SiloWorker) -> None:
    assert SiloReply.parse(resident.answer(b"?")).error


def test_a_request_that_breaks_the_training_does_not_end_the_silo(
    resident: SiloWorker, envelope: Envelope, server: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what went wrong once may go well when it is asked for again."""
    asked = replace(envelope, request=_train(server)).pack()

    def broken(*_: object) -> bytes:
        raise RuntimeError("the row 'a secret' is in this text")

    with monkeypatch.context() as patch:
        patch.setattr("hanse.deployment.silo.worker.respond", broken)
        reply = Reply.parse(SiloReply.parse(resident.answer(asked)).body)
        assert reply.error and "secret" not in reply.error
        patch.setattr(resident, "_activate", broken)
        assert "secret" not in SiloReply.parse(resident.answer(asked)).error != ""
    assert Reply.parse(SiloReply.parse(resident.answer(asked)).body).error == ""


@pytest.fixture
def kits(tmp_path: Path) -> tuple[ServerKit, SiloKit]:
    """A server's kit and silo-1's, who know each other and no one else."""
    hub, own = tmp_path / "hub", tmp_path / "own"
    identity.init(hub, [], 30)
    identity.enrol(hub, identity.make_keys(own, "silo-1"))
    for file in ("ca.crt", "server.pub"):
        shutil.copy(hub / file, own / file)
    return identity.open_server(hub), identity.open_silo(own, "silo-1")


def test_envelopes_that_are_not_the_servers_are_refused_noted_and_said(
    resident: SiloWorker, envelope: Envelope, server: Simulation, kits: tuple[ServerKit, SiloKit]
) -> None:
    hub, own = kits
    mine = SiloWorker(resident.silo, own)
    honest, thief = Outbox("server", hub.signing), Outbox("server", own.signing)
    early = Outbox("server", hub.signing, lambda: time.time() - 301)
    whole = replace(envelope, request=_train(server)).pack()
    good, stamp = honest.request(whole, "a1", 1, "silo-1")
    inbox = Inbox("server", "reply", hub.known, resident.silo.state / "replies.json")
    seen, body = inbox.open(mine.answer(good), "a1")
    assert (seen.sender, seen.sequence) == ("silo-1", stamp.sequence)
    assert Reply.parse(SiloReply.parse(body).body).error == ""
    changed = bytearray(honest.request(whole, "a1", 2, "silo-1")[0])
    changed[-1] ^= 1
    for bad, said in (
        (whole, "not signed"),
        (good, "before"),
        (bytes(changed), ""),
        (thief.request(whole, "a1", 2, "silo-1")[0], ""),
        (honest.request(whole, "a1", 2, "silo-2")[0], "silo-2"),
        (honest.request(whole, "b2", 2, "silo-1")[0], "another run"),
        (early.request(whole, "a1", 2, "silo-1")[0], "301 s"),
    ):
        refused = mine.refused
        data = mine.answer(bad)
        assert mine.refused == refused + 1
        with suppress(Untrusted):
            data = inbox.open(data)[1]
        answer = SiloReply.parse(data)
        assert said in answer.error and answer.error and not answer.body
        told = (resident.silo.state / "refusals.jsonl").read_text().splitlines()[-1]
        assert answer.error.rstrip(".") in json.loads(told)["reason"]
    assert mine.requests == {"round": 1}


def test_a_server_hears_why_its_envelope_is_not_believed(
    resident: SiloWorker, envelope: Envelope, kits: tuple[ServerKit, SiloKit]
) -> None:
    hub, own = kits
    outbox = Outbox("server", hub.signing, lambda: time.time() + 1000)
    inbox = Inbox("server", "reply", hub.known, resident.silo.state / "replies.json")

    def opened(data: bytes, run: str) -> tuple[str, int, bytes]:
        try:
            stamp, body = inbox.open(data, run)
        except Untrusted as error:
            raise BadEnvelopeError(str(error)) from None
        return stamp.sender, stamp.sequence, body

    envelopes = Envelopes(envelope, None, opened)
    sent, _ = outbox.request(envelope.pack(), "a1", 0, "silo-1")
    answered = SiloWorker(resident.silo, own).answer(sent)
    with pytest.raises(
        BadEnvelopeError, match=r"unsigned reply says that our envelope is refused: .*clock"
    ):
        envelopes.read(answered, "silo-1", 0)
    with pytest.raises(BadEnvelopeError, match="not signed"):
        envelopes.read(b"noise", "silo-1", 0)
