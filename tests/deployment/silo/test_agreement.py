"""Agreement: a server that sends silos different models gets updates without it, and none with."""

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.test_constants import go as with_constants
from hanse.deployment.server.agreement_relay import AgreementRelay
from hanse.deployment.silo.agreement import AgreementMember, DisagreementError, sent
from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import AGREED, ClientProfile, Instruction, Reply, Request, Update
from hanse.journal.run_folder import read_ledger
from hanse.security.identity import Identity
from hanse.security.signatures import sign, verify
from toys import Outcome, federate, held_out, same, silos

NAMES = ("c0", "c1", "c2", "c3")
KEYS = {name: Ed25519PrivateKey.generate() for name in (*NAMES, "stranger")}
Meddling = Callable[[str, Request], Request | None]
JOB = "rounds: 3"  # the experiment's text


def witness(name: str, folder: Path, needed: int = 3, **other: Any) -> AgreementMember:
    """One of four silos that know each other."""
    known = {n: KEYS[n].public_key() for n in NAMES if n != name}
    file = folder / "stated" / f"{name}.json"
    identity = Identity(name, KEYS[name], known)
    return AgreementMember(identity, "run", JOB, needed, file, **other)


class Silos(Transport):
    """Silos that state what they were sent; `meddle` is what a hostile server does to requests."""

    max_in_flight = None

    def __init__(self, inner: Transport, folder: Path, meddle: Meddling, needed: int) -> None:
        self.inner, self.meddle = inner, meddle
        self.witnesses = {name: witness(name, folder, needed) for name in NAMES}
        self.replies: deque[tuple[str, bytes]] = deque()

    def profiles(self) -> list[ClientProfile]:
        return self.inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        def respond(asked: bytes) -> bytes:
            self.inner.send(client, asked)
            answered = self.inner.receive(None)
            assert answered is not None
            return answered[1]

        request = self.meddle(client, Request.parse(message))
        if request is not None:
            own = self.witnesses[client]
            self.replies.append((client, own.answer(request.pack(), respond)))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        return self.replies.popleft() if self.replies else None


class Undefended(Silos):
    """The same silos without an agreement."""

    def send(self, client: str, message: bytes) -> None:
        request = self.meddle(client, Request.parse(message))
        if request is not None:
            self.inner.send(client, request.pack())
            answered = self.inner.receive(None)
            assert answered is not None
            self.replies.append(answered)


def honest(client: str, request: Request) -> Request:
    return request


def other_model(victim: str) -> Meddling:
    """A server that sends one silo a model of its own making."""

    def meddle(client: str, request: Request) -> Request:
        if client != victim or request.kind != "train":
            return request
        tensors = {name: tensor + 1 for name, tensor in request.instruction.tensors.items()}
        return replace(request, instruction=replace(request.instruction, tensors=tensors))

    return meddle


class Hostile(AgreementRelay):
    """A server that passes on what contradicts what it claims to have sent."""

    def _reason_against(self, client: str, statement: torch.Tensor) -> str:
        return ""


def agreeing(folder: Path, meddle: Meddling = honest, needed: int = 3) -> dict[str, Any]:
    return {"network": lambda inner: Hostile(Silos(inner, folder, meddle, needed), JOB)}


def plain(folder: Path, **settings: Any) -> Outcome:
    return federate(FedAvg(), silos(), folder, **settings)


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()])
def test_agreement_changes_nothing(tmp_path: Path, algorithm: Any) -> None:
    mine = federate(algorithm, silos(), tmp_path / "a", **agreeing(tmp_path / "s"))
    theirs = federate(algorithm, silos(), tmp_path / "b")
    assert same(mine.server_state, theirs.server_state)


def test_different_models_are_trained_without_it_and_refused_with_it(tmp_path: Path) -> None:
    meddle = other_model("c2")
    network = {"network": lambda inner: Undefended(inner, tmp_path / "u", meddle, 3)}
    got = plain(tmp_path / "a", **network)
    assert got.records[-1].clients == tuple(NAMES)  # the attack works: c2 answered for it
    with pytest.raises(UserError, match="no client's update could be used in round 1") as caught:
        plain(tmp_path / "b", **agreeing(tmp_path / "s", meddle))
    said = str(caught.value)
    assert all(f"{name}: {name} and c" in said for name in NAMES)
    assert "were sent different models for round 1" in said


def test_a_server_cannot_hide_the_others_from_its_victim(tmp_path: Path) -> None:
    other = other_model("c2")

    def meddle(client: str, request: Request) -> Request:
        if client == "c2" and request.kind == AGREED:
            return replace(request, instruction=Instruction())
        return other(client, request)

    with pytest.raises(UserError, match=r"c2 trains only if 3 silos .* 0 said so\."):
        plain(tmp_path / "a", **agreeing(tmp_path / "s", meddle))


def test_a_silo_that_is_singled_out_does_not_train(tmp_path: Path) -> None:
    def meddle(client: str, request: Request) -> Request | None:
        return request if client == "c0" else None

    with pytest.raises(UserError, match="c0 trains only if 1 silos that it knows were sent"):
        plain(tmp_path / "a", **agreeing(tmp_path / "s", meddle, needed=1))


def test_a_silo_that_is_away_does_not_stop_the_others(tmp_path: Path) -> None:
    def meddle(client: str, request: Request) -> Request | None:
        return None if client == "c3" else request

    got = plain(tmp_path / "a", **agreeing(tmp_path / "s", meddle, needed=2))
    assert [record.clients for record in got.records[1:]] == [("c0", "c1", "c2")] * 3


def test_silos_of_like_rank_compare(tmp_path: Path) -> None:
    """HetLoRA cuts the model to each rank: two of each agree, and one alone would not train."""
    ranks = dict(zip(NAMES, (4, 2, 4, 2), strict=True))
    learners = {name: replace(toy, rank=ranks[name]) for name, toy in silos(rank=4).items()}
    server = held_out(rank=4)
    numbers = {name: {"rank": float(rank), "scaling": 1.0} for name, rank in ranks.items()}
    one = federate(
        HetLoRA(),
        learners,
        tmp_path / "a",
        server,
        numbers=numbers,
        **agreeing(tmp_path / "s", needed=1),
    )
    assert one.records[-1].clients == tuple(NAMES)
    with pytest.raises(UserError, match="trains only if 2 silos"):
        federate(
            HetLoRA(),
            learners,
            tmp_path / "b",
            server,
            numbers=numbers,
            **agreeing(tmp_path / "t", needed=2),
        )


REQUEST = Request(
    "train",
    1,
    instruction=Instruction({"w": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 2)}, {"rank": 2.0}),
    transform_states={"upload.0": {"basis": torch.ones(3)}},
)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, round=2),
        replace(REQUEST, instruction=Instruction(REQUEST.instruction.tensors, {"rank": 3.0})),
        replace(
            REQUEST,
            instruction=Instruction(
                {**REQUEST.instruction.tensors, "b": torch.zeros(4)}, {"rank": 2.0}
            ),
        ),
        replace(
            REQUEST,
            instruction=Instruction(
                {**REQUEST.instruction.tensors, "w": torch.tensor([1.0, 2.0000002])}, {"rank": 2.0}
            ),
        ),
        replace(REQUEST, transform_states={"upload.0": {"basis": torch.zeros(3)}}),
        replace(REQUEST, transform_states={"download.0": {"basis": torch.ones(3)}}),
        replace(
            REQUEST,
            instruction=Instruction(
                {**REQUEST.instruction.tensors, "w": torch.tensor([1.0, 2.0]).view(torch.int32)},
                {"rank": 2.0},
            ),
        ),
    ],
)
def test_all_that_is_common_is_covered(other: Request) -> None:
    assert sent(other, JOB).digest != sent(REQUEST, JOB).digest
    assert sent(Request.parse(other.pack()), JOB) == sent(other, JOB)


def test_the_job_is_covered_and_a_clients_own_notes_are_not() -> None:
    assert sent(REQUEST, JOB).digest != sent(REQUEST, "another job").digest
    noted = replace(
        REQUEST, last_counted_round=3, aggregator_note=Instruction({"mask": torch.ones(1)})
    )
    assert sent(noted, JOB) == sent(REQUEST, JOB)
    coded = {**REQUEST.transform_states, "upload.1": {}}  # a codec without state, which others lack
    assert sent(replace(REQUEST, transform_states=coded), JOB) == sent(REQUEST, JOB)


def test_strangers_and_old_statements_do_not_count(tmp_path: Path) -> None:
    mine = witness("c0", tmp_path, needed=1)
    good = witness("c1", tmp_path).statement(REQUEST)
    mine.check(REQUEST, [good])
    stamped, body = verify(good, mine.identity.peers)
    stamp = replace(stamped, sender="stranger")
    mine.check(REQUEST, [sign(body, replace(stamp, sender="c1"), KEYS["c1"])])
    for forged in (
        sign(body, stamp, KEYS["stranger"]),  # a silo that the server made up
        sign(body, replace(stamp, sender="c1"), KEYS["stranger"]),  # in another's name
        sign(body, replace(stamp, sender="c0"), KEYS["c0"]),  # one's own word, sent back
        sign(body, replace(stamp, sender="c1", run="former"), KEYS["c1"]),  # of another run
        sign(body, replace(stamp, sender="c1", round=2), KEYS["c1"]),
        sign(body, replace(stamp, sender="c1", direction="reply"), KEYS["c1"]),
        sign(body, replace(stamp, sender="c1", time=stamp.time - 301), KEYS["c1"]),
        sign(b"[", replace(stamp, sender="c1"), KEYS["c1"]),
        good[:-1],
        b"",
    ):
        with pytest.raises(DisagreementError, match="for round 1 0 said so"):
            mine.check(REQUEST, [forged])
    with pytest.raises(DisagreementError, match="trains only if 2"):  # one silo's word counts once
        replace(mine, needed=2).check(REQUEST, [good, good])


def test_a_silo_says_one_thing_for_a_round_even_after_a_restart(tmp_path: Path) -> None:
    """Else its word on one model could be shown to others while it trains another."""
    other = replace(
        REQUEST,
        instruction=Instruction({**REQUEST.instruction.tensors, "w": torch.ones(2)}, {"rank": 2.0}),
    )
    witness("c0", tmp_path).statement(REQUEST)
    with pytest.raises(DisagreementError, match="was sent another model for round 1 than before"):
        witness("c0", tmp_path).statement(other)
    witness("c0", tmp_path).statement(REQUEST)  # a server that resumes asks the same again


def test_a_train_request_is_never_answered_by_training(tmp_path: Path) -> None:
    def respond(message: bytes) -> bytes:
        raise AssertionError("it trains")

    mine = witness("c0", tmp_path)
    assert Reply.parse(mine.answer(REQUEST.pack(), respond)).kind == "agree"
    alone = Request(AGREED, 2)
    assert (
        "was not asked to train in round 2" in Reply.parse(mine.answer(alone.pack(), respond)).error
    )


class Late(Silos):
    """Silos whose replies come when a test has them come; told: who was sent how many, and when."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        super().__init__(None, folder, honest, 1)  # type: ignore[arg-type]
        self.clock, self.told = clock, list[tuple[str, int, float]]()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind == AGREED:
            self.told.append((client, len(request.instruction.tensors), self.clock[0]))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if self.replies:
            return self.replies.popleft()
        assert timeout is not None
        self.clock[0] += timeout
        return None

    def state(self, name: str) -> None:
        self.replies.append((name, self.witnesses[name].answer(REQUEST.pack(), bytes)))


def test_who_is_late_is_told_at_once(tmp_path: Path) -> None:
    """Statements are passed on when patience ends, and again to whoever states later."""
    clock = [0.0]
    late = Late(tmp_path, clock)
    both = AgreementRelay(late, JOB, patience=30.0, clock=lambda: clock[0])
    for name in ("c0", "c1", "c2"):
        both.send(name, REQUEST.pack())
    for name in ("c0", "c1"):
        late.state(name)
    assert both.receive(100.0) is None
    assert (late.told, clock[0]) == ([("c0", 2, 30.0), ("c1", 2, 30.0)], 100.0)
    late.state("c2")
    both.receive(0.0)
    assert late.told[2:] == [("c2", 3, 100.0)]


def test_clients_that_are_asked_one_by_one_cannot_agree(tmp_path: Path) -> None:
    class OneByOne(Silos):
        max_in_flight = 1

    with pytest.raises(ValueError, match="sends all requests before it waits"):
        AgreementRelay(OneByOne(None, tmp_path, honest, 1), JOB)  # type: ignore[arg-type]


def test_no_other_layout_gets_a_silo_to_state_twice(tmp_path: Path) -> None:
    """Else all could state one model, padded, train another, and lead a victim by their words."""
    padded = replace(
        REQUEST, transform_states={**REQUEST.transform_states, "nobody's": {"pad": torch.zeros(1)}}
    )
    assert sent(padded, JOB).layout != sent(REQUEST, JOB).layout
    mine = witness("c0", tmp_path)
    mine.statement(padded)
    with pytest.raises(DisagreementError, match="another model for round 1 than before"):
        mine.statement(REQUEST)


def test_a_silo_that_was_killed_goes_on_with_what_it_has_stated(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def respond(message: bytes) -> bytes:
        asked.append(message)
        return Reply("c0", "train", 1).pack()

    words = [witness(name, tmp_path).statement(REQUEST) for name in NAMES[1:]]
    told = Instruction({str(n): torch.tensor(list(word)).byte() for n, word in enumerate(words)})
    agreed = Request(AGREED, 1, instruction=told).pack()
    witness("c0", tmp_path).answer(REQUEST.pack(), respond)
    again = witness("c0", tmp_path)  # its process was started anew
    for _ in range(2):  # and the reply was lost on its way
        assert Reply.parse(again.answer(agreed, respond)).error == ""
    assert asked == [REQUEST.pack()]
    later = Request(AGREED, 2, instruction=told).pack()
    assert "was not asked to train in round 2" in Reply.parse(again.answer(later, respond)).error


@pytest.mark.parametrize(
    "statement",
    [torch.ones(3), torch.tensor([300]), torch.zeros(9000).byte(), torch.zeros(2, 2).byte()],
)
def test_what_a_malicious_silo_states_harms_itself_alone(
    tmp_path: Path, statement: torch.Tensor
) -> None:
    class Malicious(Silos):
        def send(self, client: str, message: bytes) -> None:
            request = Request.parse(message)
            if client != "c3" or request.kind != "train":
                return super().send(client, message)
            update = Update({"statement": statement})
            self.replies.append((client, Reply(client, "agree", request.round, update).pack()))

    network = {
        "network": lambda inner: AgreementRelay(Malicious(inner, tmp_path / "s", honest, 2), JOB)
    }
    got = plain(tmp_path / "a", **network)
    assert [record.clients for record in got.records[1:]] == [("c0", "c1", "c2")] * 3
    errors = [row.error for row in read_ledger(tmp_path / "a") if row.error]
    assert len(errors) == 3 and all("cannot be read" in error for error in errors)
    instruction = Instruction({"s": statement})
    mine = witness("c0", tmp_path / "t", needed=0)
    mine.answer(REQUEST.pack(), bytes)
    reply = mine.answer(
        Request(AGREED, 1, instruction=instruction).pack(), lambda _: Reply("c0", "train", 1).pack()
    )
    assert Reply.parse(reply).error == ""  # it is none, and was not needed


def test_waiting_for_statements_leaves_time_to_train(tmp_path: Path) -> None:
    """One is away: the others are told after a third of the deadline, not at its end."""
    clock = [0.0]
    late = Late(tmp_path, clock)
    both = AgreementRelay(late, JOB, patience=30.0, clock=lambda: clock[0])
    for name in ("c0", "c1"):
        both.send(name, REQUEST.pack())
    late.state("c0")
    assert both.receive(12.0) is None
    assert (late.told, clock[0]) == ([("c0", 1, 4.0)], 12.0)


class Liar(Silos):
    """Silos of which c3 signs, with its own key, that it was sent another model than it was."""

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if client == "c3" and request.kind == "train":
            lie = other_model("c3")(client, request)
            return super().send(client, replace(lie, instruction=lie.instruction).pack())
        super().send(client, message)


def test_a_signed_lie_costs_the_liar_alone(tmp_path: Path) -> None:
    """Passed on, it would end every silo's run in round 1, and the server would look guilty."""
    passed = {"network": lambda inner: Hostile(Liar(inner, tmp_path / "s", honest, 2), JOB)}
    with pytest.raises(UserError, match="were sent different models for round 1"):
        plain(tmp_path / "a", **passed)
    checked = {"network": lambda inner: AgreementRelay(Liar(inner, tmp_path / "t", honest, 2), JOB)}
    got = plain(tmp_path / "b", **checked)
    assert [record.clients for record in got.records[1:]] == [("c0", "c1", "c2")] * 3
    errors = [row for row in read_ledger(tmp_path / "b") if row.error]
    assert {row.client for row in errors} == {"c3"} and len(errors) == 3
    assert all("states that it was sent another model" in row.error for row in errors)


def test_an_honest_statement_is_passed_on(tmp_path: Path) -> None:
    network = {
        "network": lambda inner: AgreementRelay(Silos(inner, tmp_path / "s", honest, 3), JOB)
    }
    got = plain(tmp_path / "a", **network)
    assert [record.clients for record in got.records[1:]] == [tuple(NAMES)] * 3


def test_a_silo_that_has_lost_the_constants_states_again(tmp_path: Path) -> None:
    """It is sent them with the same request, which it has stated something about already."""
    whole = with_constants(tmp_path / "whole")
    network = agreeing(tmp_path / "s", needed=2)
    with_constants(tmp_path / "run", stop_after=1, **network)
    shutil.rmtree(tmp_path / "run" / "clients" / "constants")
    gone_on = with_constants(tmp_path / "run", {"c0": 1.0, "c1": 2.0}, **network)
    assert same(gone_on.server_state, whole.server_state)
    assert all(record.clients == ("c0", "c1", "c2") for record in gone_on.records[1:])


def test_a_lie_of_a_silo_that_was_not_asked_is_not_passed_on(tmp_path: Path) -> None:
    """It answers an older request with it: a word on this round, signed with a key all know."""
    late = Late(tmp_path, clock=[0.0])
    both = AgreementRelay(late, JOB, clock=lambda: late.clock[0])
    for name in ("c0", "c1"):
        both.send(name, REQUEST.pack())
    lie = replace(REQUEST, instruction=Instruction({"another": torch.ones(1)})).pack()
    late.replies.append(("c2", late.witnesses["c2"].answer(lie, bytes)))
    found = both.receive(100.0)
    assert found is not None and found[0] == "c2" and "not asked" in Reply.parse(found[1]).error
    for name in ("c0", "c1"):
        late.state(name)
    assert both.receive(100.0) is None
    assert [told[:2] for told in late.told] == [("c0", 2), ("c1", 2)]
