"""Wrong messages in all phases: nobody fails, and a sum is right or there is none."""

import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import hostile_messages
from hanse.errors import UserError
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_memory import LostMemory
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.federation.secure_sums.grid import Grid
from hanse.randomness import RoundContext
from hanse.simulation import in_process
from hanse.simulation.in_process import InProcess
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Content, MessageError
from toys import federate, held_out, silos

PHASES = ("keys", "shares", "train", "survivors", "unmask")
NAMES = tuple(f"c{number}" for number in range(5))
RULE = SecAgg(threshold=3, colluders=0.0)  # two of five may drop out
MESSAGES = 250  # that are changed
ODD = (0.0, -1.0, 0.5, 2.0, 3.0, 2.0**31, 2.0**53, 1e308, 5e-324)
Draw = random.Random


def planted(client: str, round: int, received: Tensors) -> dict[str, torch.Tensor]:
    """The update of one client: it tells who trained, in which round, and from which model."""
    draw = RoundContext(7, round, client).generator("planted")
    return {n: torch.randn(t.shape, generator=draw) + t / 2 for n, t in sorted(received.items())}


@dataclass(frozen=True)
class Planted(FedAvg):
    """Clients with planted updates, whose mean is the next model.

    spoilt: rounds in which a masked summand was changed, which nobody can see.
    right: gets the rounds whose sum is right.
    """

    needs: ClassVar[frozenset[str]] = FedAvg.needs
    spoilt: set[int] = field(default_factory=set)
    right: list[int] = field(default_factory=list)

    def train(self, instruction: Instruction, client: Client) -> Update:
        context = client.context
        tensors = planted(context.client, context.round, instruction.tensors)
        return Update(tensors, {"loss": 1.0}, weight=client.profile.examples)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        round, clients = server.context.round, combined.clients
        if round in self.spoilt:
            return state
        updates = {name: planted(name, round, state["model"]) for name in clients}
        weights = {name: 8.0 + 4 * NAMES.index(name) for name in clients}
        assert combined.weight == sum(weights.values()) and len(clients) >= 3
        grid = Grid(len(NAMES), RULE.bits, RULE.clip, 24.0)
        rounding = len(clients) * grid.step * 24.0 / 2 / combined.weight
        for key, tensor in combined.tensors.items():
            summed = sum(weights[n] * own[key].double() for n, own in updates.items())
            mean = summed / combined.weight
            assert isinstance(mean, torch.Tensor)
            torch.testing.assert_close(tensor.double(), mean, atol=rounding, rtol=2**-23)
        self.right.append(round)
        return {"model": combined.tensors}


def _data(message: bytes, draw: Draw) -> bytes:
    """A bit of the tensors."""
    start = 8 + int.from_bytes(message[:8], "little")
    wrong = bytearray(message)
    wrong[draw.randrange(start, len(message))] ^= 1 << draw.randrange(8)
    return bytes(wrong)


def _number(message: bytes, draw: Draw) -> bytes:
    """Another value for one number: the round, an index, the number of clients, a weight."""
    header, data = hostile_messages.split(message)
    wrong, (start, stop) = bytearray(data), header["#"]["data_offsets"]
    struct.pack_into("<d", wrong, draw.randrange(start, stop, 8), draw.choice(ODD))
    return hostile_messages.file(header, bytes(wrong))


def _changed(message: bytes, draw: Draw) -> bytes:
    """A message that can be read, with other tensors."""
    is_request = b'"message":"request"' in message.replace(b"\\", b"").replace(b" ", b"")
    if is_request:
        request = Request.parse(message)
        part = draw.choice(("instruction", "aggregator_note"))
        tensors = _other(getattr(request, part).tensors, draw)
        return replace(request, **{part: replace(getattr(request, part), tensors=tensors)}).pack()
    reply = Reply.parse(message)
    update = replace(reply.update, tensors=_other(dict(reply.update.tensors), draw))
    return replace(reply, update=update).pack()


def _other(tensors: Tensors, draw: Draw) -> dict[str, torch.Tensor]:
    """Tensors left out, exchanged, renamed, shortened, prolonged, emptied, or of another dtype."""
    if not tensors:
        return {
            draw.choice((*NAMES, "survivors", "x")): torch.zeros(draw.choice((0, 1, 99))).byte()
        }
    names = sorted(tensors)
    name, other = draw.choice(names), draw.choice(names)
    tensor, rest = tensors[name], {n: tensors[n] for n in names if n != draw.choice((name, ""))}
    new = draw.choice((*NAMES, "mallory", "", "request"))
    return draw.choice(
        (
            {},
            {n: t for n, t in rest.items() if n != name},
            {**tensors, name: tensors[other], other: tensor},
            {**rest, new: tensor},
            {**tensors, name: tensor.flatten()[: draw.randrange(tensor.numel() + 1)]},
            {**tensors, name: torch.cat([tensor.flatten(), tensor.flatten()])},
            {**tensors, name: tensor.new_zeros(draw.choice(((0,), (), (2, 0), (1, 1))))},
            {**tensors, name: torch.zeros_like(tensor)},
            {**tensors, name: tensor.float() * draw.choice((1.0, float("nan"), 1e30))},
            {**tensors, name: tensor.bfloat16()},
            {**tensors, name: tensor.long()},
            {**tensors, name: tensor != 0},
        )
    )


GENERIC = (
    "bits",
    "letter",
    "cut",
    "longer",
    "spliced",
    "dtype",
    "shape",
    "offsets",
    "twice",
    "text",
)
CHANGES: list[Callable[[bytes, Draw], bytes]] = [
    *(hostile_messages.CHANGES[name] for name in GENERIC),
    *[_data, _number, _changed] * 4,
]


class EnoughError(Exception):
    """As many messages were changed as a test wants."""


@dataclass
class Mischief:
    """Changes three messages of a round, once, and silences a client in some rounds.

    spoilt: rounds in which a masked summand was changed, which nobody can see.
    changed: the messages that were changed, by phase and direction.
    plans: by round, the messages that are still to be changed.
    """

    draw: Draw
    spoilt: set[int]
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    earlier: dict[tuple[str, str], bytes] = field(default_factory=dict)
    plans: dict[int, dict[tuple[str, str], str]] = field(default_factory=dict)
    silent: str = ""

    def __call__(self, endpoint: ClientEndpoint, message: Content) -> bytes:
        """The reply of a client, with whatever is wrong with it."""
        request, name = Request.parse(message), endpoint.profile.name
        if request.kind not in PHASES:
            return respond(endpoint, message)
        self._begin(request)
        way = self.plans[request.round].pop((request.kind, name), "")  # once; not if it is repeated
        sent = self._wrong(bytes(message), request.kind, way) if way == "request" else message
        if not way and name == self.silent and self.draw.random() < 0.5:
            return Reply(name, request.kind, request.round, error="it is out of order.").pack()
        try:
            reply = respond(endpoint, sent)
        except LostMemory:  # it has said that it keeps a memory
            return respond(endpoint, replace(request, last_counted_round=0).pack())
        except MessageError:  # where it is deployed, it answers with an error
            return Reply(name, request.kind, request.round, error="it cannot read that.").pack()
        return self._replied(reply, request) if way == "reply" else reply

    def _begin(self, request: Request) -> None:
        """Draw the messages to change in a new round."""
        if request.kind == "keys":
            self.spoilt.discard(request.round)
        if request.round not in self.plans:
            if self.changed.total() >= MESSAGES:
                raise EnoughError
            victims = self.draw.sample(NAMES, 2)
            self.plans[request.round] = {
                (phase, self.draw.choice(victims)): self.draw.choice(("request", "reply"))
                for phase in self.draw.sample(PHASES, 3)
            }
            self.silent = self.draw.choice(("", "", *victims))

    def _replied(self, reply: bytes, request: Request) -> bytes:
        """A wrong reply; notes a masked summand that is no longer the client's."""
        wrong = self._wrong(reply, request.kind, "reply")
        if request.kind == "train" and _words(wrong) not in (None, _words(reply)):
            self.spoilt.add(request.round)
        return wrong

    def _wrong(self, message: bytes, kind: str, direction: str) -> bytes:
        """A message with something wrong, or an earlier one of this kind."""
        old = self.earlier.get((kind, direction))
        self.earlier[kind, direction] = message
        self.changed[kind, direction] += 1
        if old is not None and self.draw.random() < 0.1:
            return old
        return self.draw.choice(CHANGES)(message, self.draw)


def _words(reply: bytes) -> dict[str, str] | None:
    """The masked words in a reply; None if it cannot be read."""
    try:
        tensors = Reply.parse(reply).update.tensors
        return {name: f"{tensors[name].dtype} {tensors[name].tolist()}" for name in tensors}
    except MessageError:
        return None


@pytest.mark.parametrize("seed", range(2))
def test_a_sum_is_right_or_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    algorithm = Planted()
    mischief = Mischief(random.Random(seed), algorithm.spoilt)
    monkeypatch.setattr(in_process, "respond", mischief)
    monkeypatch.setattr(InProcess, "wait_for", lambda self, clients, required: True)
    endings: list[str] = []
    with pytest.raises(EnoughError):
        while True:
            try:
                federate(
                    algorithm,
                    silos(5),
                    tmp_path / "run",
                    held_out(),
                    rounds=MESSAGES,
                    aggregator=RULE,
                )
            except UserError as error:  # such as too few clients that may still answer
                endings.append(str(error))
    assert len(algorithm.right) > MESSAGES / 4 and len(mischief.changed) == 2 * len(PHASES)
    assert all(sentence.endswith(".") for sentence in endings)
    assert not [record for record in caplog.records if record.exc_info]
