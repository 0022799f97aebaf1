"""One round's exchange with its clients: requests, and the updates that pass the schema gate."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hanse.federation.constants import Constants
from hanse.federation.conversation import Conversation
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.messages import (
    ClientProfile,
    Instruction,
    Reply,
    Request,
    Update,
    validate_update,
)
from hanse.federation.run import Run
from hanse.federation.screening import NormBound
from hanse.federation.server_state import ServerState
from hanse.observability.progress import report
from hanse.observability.requests import log_fields, request_id
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)


@dataclass
class RoundExchange:
    """The `Exchange` of one round; `interfaces/aggregator.py` says what each method promises.

    instructions: the algorithm's instruction to each client, in client order.
    replies_awaited: the number of training replies to wait for; None: those of all clients.
    remembering: the clients that keep a memory of this round.
    silent: the clients that did not answer the last request in time.
    """

    run: Run
    server_state: ServerState
    context: RoundContext
    profiles: Mapping[str, ClientProfile]
    instructions: Mapping[str, Instruction]
    replies_awaited: int | None = None
    remembering: set[str] = field(default_factory=set)
    silent: list[str] = field(default_factory=list)

    @property
    def algorithm(self) -> Algorithm:
        return self.run.method.algorithm

    @property
    def constants(self) -> Constants:
        """The adapter's constants, which a client is sent once."""
        return self.server_state.constants

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
            note = notes[name] if notes else Instruction()
            return replace(self.encoded("train", name), aggregator_note=note)

        names = [name for name in self.instructions if notes is None or name in notes]
        updates = self._converse("train", names, request, self.sealed_layout)
        if self.run.schedule.max_norm_ratio is None:
            return updates
        bound = NormBound(self.run.schedule.max_norm_ratio, self.decode, self.algorithm)
        return bound.screen(updates, self._refuse_valid)

    def evaluate(self) -> Iterator[tuple[ClientProfile, Update]]:
        """Each client's scores on its own held-out rows; only numbers come back."""
        request = partial(self.encoded, "evaluate")
        return self._converse("evaluate", list(self.instructions), request, lambda name: {})

    def encoded(self, kind: str, name: str) -> Request:
        """A request with the algorithm's instruction to one client, encoded for the download."""
        instruction, states = self.instructions[name], self.server_state.transform_states
        tensors = self.run.method.download.encode(instruction.tensors, {}, states, self.context)
        request = self._request(kind, name, Instruction(tensors, instruction.numbers))
        return replace(request, transform_states=self.run.method.broadcast(states))

    def sealed_layout(self, name: str) -> Layout:
        """The layout of a client's update as it crosses the network."""
        state, profile = self.server_state, self.profiles[name]
        return self.run.method.sealed_layout(
            state.algorithm_state, state.transform_states, profile, self.context
        )

    def decode(self, client: str, tensors: Tensors) -> Tensors:
        context = replace(self.context, client=client)
        return self.run.method.upload.decode(tensors, self.server_state.transform_states, context)

    def counting(self, clients: Sequence[str]) -> dict[str, int]:
        """The last counted rounds once the updates of these clients have been counted."""
        used, before = set(clients), self.server_state.last_counted_rounds
        others = {name: last for name, last in before.items() if name not in used}
        return others | dict.fromkeys(sorted(used & self.remembering), self.context.round)

    def _log_fields(self, event: str, client: str, kind: str) -> dict[str, Any]:
        run_id = self.run.journal.ledger.run_id
        return log_fields(event, request_id(run_id, self.context.round, client, kind))

    def _request(self, kind: str, name: str, instruction: Instruction) -> Request:
        """A request with the adapter's constants for a client that does not have them."""
        state = self.server_state
        return Request(
            kind,
            self.context.round,
            state.last_counted_rounds.get(name, 0),
            instruction,
            constants=state.constants.digest,
            given={} if name in state.holding else state.constants.tensors,
        )

    def _converse(
        self,
        kind: str,
        names: Sequence[str],
        request: Callable[[str], Request],
        layout: Callable[[str], Layout],
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """Ask all of these clients, and yield the valid updates in client order."""
        conversation = self._conversation(kind, names, request, layout)
        for reply, size in conversation.replies():
            conversation.count(size)
            if self._record(kind, reply, size, layout(reply.client)):
                yield self.profiles[reply.client], reply.update
            del reply  # or it would stay in memory while the next client trains
        self.silent = conversation.silent
        report(Work(Activity.AGGREGATING))

    def _conversation(
        self,
        kind: str,
        names: Sequence[str],
        request: Callable[[str], Request],
        layout: Callable[[str], Layout],
    ) -> Conversation:
        spare = 0
        if kind == "train" and self.replies_awaited is not None:
            spare = max(0, len(names) - self.replies_awaited)
        return Conversation(
            self.run.transport,
            self.run.journal.ledger,
            kind,
            self.context.round,
            names,
            request,
            layout,
            self.constants.digest,
            self.server_state.holding,
            self.run.schedule.deadline,
            spare=spare,
        )

    def _record(self, kind: str, reply: Reply, size: int, layout: Layout) -> bool:
        """Record a reply in log and ledger; returns True if its update is valid and may be used."""
        if reply.error:
            extra = self._log_fields("refused", reply.client, kind)
            log.warning("%s did not answer: %s", reply.client, reply.error, extra=extra)
            self.run.journal.ledger.received(reply.client, reply.kind, size, {}, error=reply.error)
            return False
        try:
            self._validate(kind, reply, layout)
        except MessageError as error:
            self._refuse_update(reply.client, kind, str(error), size)
            return False
        if self.constants.digest:
            self.server_state.holding.add(reply.client)
        numbers = {**reply.update.numbers, "weight": reply.update.weight}
        self.run.journal.ledger.received(reply.client, reply.kind, size, numbers)
        log.info("%s", _summary(reply), extra=self._log_fields("accepted", reply.client, kind))
        if reply.update.keeps_memory:
            self.remembering.add(reply.client)
        return True

    def _validate(self, kind: str, reply: Reply, layout: Layout) -> None:
        """Raise MessageError unless the update is as requested, and its weight within the bound."""
        if kind != "train":
            return validate_update(reply.update, layout)
        largest = self.algorithm.max_weight(self.profiles[reply.client])
        return validate_update(reply.update, layout, self.algorithm.numbers, largest)

    def _refuse_update(self, name: str, kind: str, reason: str, size: int = 0) -> None:
        """Write into log and ledger that a client's update is not used."""
        extra = self._log_fields("refused", name, kind)
        log.warning("the answer of %s to %s was refused: %s", name, kind, reason, extra=extra)
        self.run.journal.ledger.received(name, kind, size, {}, error=reason)

    def _refuse_valid(self, name: str, reason: str) -> None:
        """Refuse an update that passed validation; its client must not keep the round."""
        self.remembering.discard(name)
        self._refuse_update(name, "train", reason)


def open_round(
    run: Run,
    round: int,
    server_state: ServerState,
    profiles: Mapping[str, ClientProfile],
    replies_awaited: int | None = None,
) -> RoundExchange:
    """The exchange with the clients of one round, in client order.

    replies_awaited: the number of training replies to wait for; None: those of all clients.
    """
    context, algorithm = RoundContext(run.schedule.seed, round), run.method.algorithm
    instructions = {}
    for name, profile in profiles.items():
        instruction = algorithm.instruction(server_state.algorithm_state, profile, context)
        if instruction is not None:
            instructions[name] = instruction
    return RoundExchange(
        run,
        server_state,
        context,
        {name: profiles[name] for name in instructions},
        instructions,
        replies_awaited,
    )


def _summary(reply: Reply) -> str:
    """One line of progress about a client's answer."""
    numbers = {n: v for n, v in reply.update.numbers.items() if n in ("loss", "steps", "accuracy")}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    return f"round {reply.round}: {reply.client} answered {reply.kind} ({shown})"
