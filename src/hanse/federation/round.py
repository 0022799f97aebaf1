"""One round's conversation: requests out, replies back in client order, gated and decoded."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hanse.federation.constants import Constants
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import State
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import (
    ClientProfile,
    Instruction,
    Reply,
    Request,
    Update,
    validate_update,
)
from hanse.federation.pipeline import Pipeline, TransformStates
from hanse.federation.screening import NormBound, refuse_large
from hanse.federation.spool import Spool
from hanse.federation.traffic import Traffic
from hanse.journal.ledger import Ledger
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)


@dataclass
class RoundExchange:
    """The `Exchange` of one round; see the protocol in `interfaces` for what each method promises.

    instructions: what the algorithm sends each client, in client order.
    counted: the last counted round of each client that remembers it.
    deadline: seconds that the round's clients have to answer one request (None: no limit).
    enough: how many answers to training are waited for; None: those of all.
    max_norm_ratio: how many times the median of the others' norms an update may have; None: any.
    constants: of the adapter, which a client is sent once.
    holding: the clients that have them; those that come to have them are added.
    remembering: the clients that have kept something of this round.
    silent: those that did not answer the last request in time.
    """

    federation: Transport
    algorithm: Algorithm
    upload: Pipeline
    download: Pipeline
    aggregator: Aggregator
    state: State
    transform_states: TransformStates
    profiles: Mapping[str, ClientProfile]
    instructions: Mapping[str, Instruction]
    counted: Mapping[str, int]
    context: RoundContext
    ledger: Ledger
    deadline: float | None = None
    enough: int | None = None
    max_norm_ratio: float | None = None
    constants: Constants = field(default_factory=Constants)
    holding: set[str] = field(default_factory=set)
    remembering: set[str] = field(default_factory=set)
    silent: list[str] = field(default_factory=list)

    def ask(
        self, kind: str, instructions: Mapping[str, Instruction], expected: Mapping[str, Layout]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        def request(name: str) -> Request:
            return self._request(kind, name, instructions[name])

        return self._converse(kind, list(instructions), request, expected.__getitem__)

    def train(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        def request(name: str) -> Request:
            return replace(
                self.encoded("train", name), aggregator_note=notes[name] if notes else Instruction()
            )

        names = [name for name in self.instructions if notes is None or name in notes]
        updates = self._converse("train", names, request, self.expected)
        if self.max_norm_ratio is None:
            return updates
        bound = NormBound(self.max_norm_ratio, self.decode, self.algorithm)
        return bound.screen(updates, self._refuse_counted)

    def evaluate(self) -> Iterator[tuple[ClientProfile, Update]]:
        """Each client's scores on its own held-out rows; only numbers come back."""
        request = partial(self.encoded, "evaluate")
        return self._converse("evaluate", list(self.instructions), request, lambda name: {})

    def encoded(self, kind: str, name: str) -> Request:
        """The algorithm's instruction to one client, encoded for its way down."""
        instruction = self.instructions[name]
        tensors = self.download.encode(instruction.tensors, {}, self.transform_states, self.context)
        states = self.upload.broadcast(self.transform_states) | self.download.broadcast(
            self.transform_states
        )
        return replace(
            self._request(kind, name, Instruction(tensors, instruction.numbers)),
            transform_states=states,
        )

    def expected(self, name: str) -> Layout:
        """What a client's sealed update must look like."""
        layout = self.algorithm.update_layout(self.state, self.profiles[name], self.context)
        return self.aggregator.layout(self.upload.layout(layout, self.transform_states))

    def decode(self, client: str, tensors: Tensors) -> Tensors:
        return self.upload.decode(
            tensors, self.transform_states, replace(self.context, client=client)
        )

    def counting(self, clients: Sequence[str]) -> dict[str, int]:
        """What `counted` becomes when the updates of these clients have been counted."""
        used = set(clients)
        others = {name: last for name, last in self.counted.items() if name not in used}
        return others | dict.fromkeys(sorted(used & self.remembering), self.context.round)

    def _request(self, kind: str, name: str, instruction: Instruction) -> Request:
        given = {} if name in self.holding else self.constants.tensors
        told = Request(kind, self.context.round, self.counted.get(name, 0), instruction)
        return replace(told, constants=self.constants.digest, given=given)

    def _converse(
        self,
        kind: str,
        names: Sequence[str],
        request: Callable[[str], Request],
        expected: Callable[[str], Layout],
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """Ask all of these, and yield the good answers in client order."""
        traffic = Traffic(kind, request, expected, deque(names), len(names))
        self._send(traffic)
        traffic.tell()
        for reply, size in self._in_order(names, traffic):
            traffic.done, traffic.up = traffic.done + 1, traffic.up + size
            traffic.tell()
            who = {"silo": reply.client, "round": reply.round}
            if reply.error:
                log.warning("%s did not answer: %s", reply.client, reply.error, extra=who)
                self.ledger.received(reply.client, reply.kind, size, {}, error=reply.error)
                continue
            try:
                self._admit(kind, reply, expected(reply.client))
            except MessageError as error:
                self._refuse_update(reply.client, kind, str(error), size)
                continue
            if self.constants.digest:
                self.holding.add(reply.client)
            numbers = {**reply.update.numbers, "weight": reply.update.weight}
            self.ledger.received(reply.client, reply.kind, size, numbers)
            log.info("%s", _told(reply), extra=who)
            if reply.update.keeps_memory:
                self.remembering.add(reply.client)
            yield self.profiles[reply.client], reply.update
            del reply  # or it would stay in memory while the next client trains
        report(Work(Activity.AGGREGATING))

    def _admit(self, kind: str, reply: Reply, expected: Layout) -> None:
        """Raise MessageError unless an answer is what was asked for, and not too heavy."""
        if kind != "train":
            return validate_update(reply.update, expected)
        most = self.algorithm.max_weight(self.profiles[reply.client])
        return validate_update(reply.update, expected, self.algorithm.numbers, most)

    def _refuse_update(self, name: str, kind: str, why: str, size: int = 0) -> None:
        """Say that a client's update is not used, in the log and in the ledger."""
        who = {"silo": name, "round": self.context.round}
        log.warning("the answer of %s to %s was refused: %s", name, kind, why, extra=who)
        self.ledger.received(name, kind, size, {}, error=why)

    def _refuse_counted(self, name: str, why: str) -> None:
        """Refuse an update that had passed the gate; its client must not remember the round."""
        self.remembering.discard(name)
        self._refuse_update(name, "train", why)

    def _send(self, traffic: Traffic) -> None:
        """Send clients their requests, as many as the federation takes."""
        most = self.federation.max_in_flight
        while traffic.unsent and (most is None or traffic.under_way < most):
            name = traffic.unsent.popleft()
            with self.ledger.time("serialization"):
                message = traffic.request(name).pack()
            self.ledger.sent(name, traffic.kind, len(message))
            self.federation.send(name, message)
            traffic.under_way, traffic.down = traffic.under_way + 1, traffic.down + len(message)

    def _in_order(self, names: Sequence[str], traffic: Traffic) -> Iterator[tuple[Reply, int]]:
        """Replies in client order whatever order they come in; early ones wait on disk, encoded."""
        waiting, missing = deque(names), set(names)
        with Spool() as early:
            for reply, message in self._arriving(missing, traffic):
                if reply.client == waiting[0]:
                    waiting.popleft()
                    yield reply, len(message)
                else:
                    early.put(reply.client, message)
                del message, reply  # as in `_converse`
                while waiting and waiting[0] in early:
                    yield _read_back(early.take(waiting.popleft()))
            self.silent = [name for name in waiting if name in missing]
            for name in waiting:
                if name in early:
                    yield _read_back(early.take(name))
                else:
                    log.warning("%s did not answer in time", name)

    def _arriving(self, missing: set[str], traffic: Traffic) -> Iterator[tuple[Reply, bytes]]:
        """Each client's one answer as it comes, until enough are there or time is over.

        missing: who owes one; who has answered is taken out.
        """
        end = None if self.deadline is None else time.monotonic() + self.deadline
        spare = max(0, len(missing) - (self.enough or len(missing)))
        spare = spare if traffic.kind == "train" else 0
        ready: list[tuple[Reply, bytes]] = []
        while len(missing) > spare:
            self._send(traffic)
            left = None if end is None else max(0.0, end - time.monotonic())
            with self.ledger.time("clients"):
                arrived = self.federation.receive(left)
            if arrived is None:
                return
            traffic.under_way -= 1
            sender, message = arrived
            due = traffic.expected(sender) if sender in missing else {}
            reply, message = self._read(sender, message, traffic.kind, due)
            asked = reply.kind == traffic.kind and reply.round == self.context.round
            if sender not in missing or not asked:  # but answers an older request, or again
                traffic.under_way += 1  # that request was none of these
                self._refuse(reply, len(message))
                continue
            if reply.lacks == self.constants.digest and sender in self.holding:
                self._send_again(reply, len(message), traffic)
                continue
            missing.discard(sender)
            spare = max(0, spare - bool(reply.error))  # one of the others must do instead
            ready.append((reply, message))
            del arrived, message, reply  # else they stay here for as long as they are worked on
            yield ready.pop()

    def _send_again(self, reply: Reply, size: int, traffic: Traffic) -> None:
        """Ask a client that has lost the constants once more, and send them along."""
        log.warning("%s lacks the adapter's constants: sent again", reply.client)
        self.ledger.received(reply.client, reply.kind, size, {})
        self.holding.discard(reply.client)
        traffic.unsent.appendleft(reply.client)

    def _refuse(self, reply: Reply, size: int) -> None:
        """An answer to a request that is over, or a second one: it is counted nowhere."""
        told = (reply.client, reply.kind, reply.round)
        who = {"silo": reply.client}
        log.warning("%s answered %s of round %d late or twice: not used", *told, extra=who)
        self.ledger.refused(*told, size)

    def _read(self, sender: str, message: bytes, kind: str, due: Layout) -> tuple[Reply, bytes]:
        """The reply in a message, and the message; an error instead of what is not its sender's.

        due: the layout of the tensors that it may hold.
        """
        with self.ledger.time("serialization"):
            try:
                refuse_large(message, due)
                reply = Reply.parse(message)
                if reply.client == sender:
                    return reply, message
                why = f"it is in the name of {reply.client!r:.80}"
            except MessageError as error:
                why = str(error)
        refused = Reply(sender, kind, self.context.round, error=f"its reply was refused: {why}")
        return refused, refused.pack()


def _read_back(message: bytes) -> tuple[Reply, int]:
    """A reply that has waited, and its size."""
    return Reply.parse(message), len(message)


def _told(reply: Reply) -> str:
    """One line of progress about a client's answer."""
    numbers = {n: v for n, v in reply.update.numbers.items() if n in ("loss", "steps", "accuracy")}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    return f"round {reply.round}: {reply.client} answered {reply.kind} ({shown})"
