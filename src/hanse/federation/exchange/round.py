"""One round's exchange with its clients: encoded instructions, and their decoded updates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from hanse.errors import UserError
from hanse.federation import sums
from hanse.federation.constants import Constants
from hanse.federation.delivery.file_delivery import FileDelivery
from hanse.federation.exchange.downloads import Downloads
from hanse.federation.exchange.inquiry import Inquiry
from hanse.federation.exchange.screening import NormBound
from hanse.federation.interfaces.aggregator import TooFewClientsError
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import (
    ClientProfile,
    Instruction,
    Request,
    Update,
    validate_update,
)
from hanse.federation.request_digest import request_digest
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal import summed
from hanse.journal.summed import OpenedSum
from hanse.journal.updates import keep
from hanse.observability.requests import OWN_KINDS
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, largest
from hanse.tensors.serialization import MessageError


@dataclass
class RoundExchange:
    """The `Exchange` of one round; `interfaces/aggregator.py` says what each method promises.

    instructions: the algorithm's instruction to each client, in client order.
    replies_awaited: the number of training replies to wait for; None: those of all clients.
    attempt: as in `Request`.
    required: as in `Exchange`.
    """

    run: Run
    server_state: ServerState
    context: RoundContext
    profiles: Mapping[str, ClientProfile]
    instructions: Mapping[str, Instruction]
    replies_awaited: int | None = None
    attempt: int = 0
    required: int = 1

    @cached_property
    def inquiry(self) -> Inquiry:
        """The requests of this round."""
        return Inquiry(self.run, self.server_state, self.context, self.profiles, self.attempt)

    @cached_property
    def downloads(self) -> Downloads:
        """The instructions as they cross the network."""
        state, method = self.server_state, self.run.method
        memories = state.download_memories
        return Downloads(method, state.transform_states, memories, self.context, self.instructions)

    @property
    def round(self) -> int:
        return self.context.round

    @property
    def participants(self) -> Sequence[str]:
        return self.run.schedule.participants or [*self.run.profiles()]

    @property
    def summed(self) -> OpenedSum | None:
        return summed.noted(self.run.journal.folder, self.round)

    def note_sum(self, opened: OpenedSum) -> None:
        summed.note(self.run.journal.folder, self.round, opened)

    @property
    def algorithm(self) -> Algorithm:
        return self.run.method.algorithm

    @property
    def constants(self) -> Constants:
        """The adapter's constants, which a client is sent once."""
        return self.server_state.constants

    def ask(
        self,
        kind: str,
        instructions: Mapping[str, Instruction],
        expected: Mapping[str, Layout],
        patience: float | None = None,
    ) -> Iterator[tuple[ClientProfile, Update]]:
        if kind in OWN_KINDS:
            raise TypeError(f"{kind} is a request of the framework, and no phase of an aggregator")

        def request(name: str) -> Request:
            return self.inquiry.request(kind, name, instructions[name])

        layout, names = expected.__getitem__, list(instructions)
        return self.inquiry.ask(kind, names, request, layout, patience=patience)

    def digest(self) -> bytes:
        names = list(self.instructions)
        first, last = (
            replace(self.encoded("train", name), last_counted_round=0, given={})
            for name in (names[0], names[-1])
        )
        common = request_digest(first)
        if not first.is_like(last) and request_digest(last) != common:
            raise TypeError(
                f"{names[0]} and {names[-1]} get different requests, which cannot be compared"
            )
        return common

    def weight_bound(self) -> float:
        return max(map(self.algorithm.max_weight, self.profiles.values()))

    def summand_layout(self) -> Layout:
        state, profile = self.server_state, next(iter(self.profiles.values()))
        return self.run.method.summand_layout(
            state.algorithm_state, state.transform_states, profile, self.context
        )

    def updates(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        if self.run.method.aggregator.sums_only:
            raise TypeError("a rule that declares sums_only reads no single update")
        updates = self._decoded(self._train(notes))
        # The norms of updates that are hidden in the aggregate alone must decide nothing.
        method = self.run.method
        free = method.hides_updates or method.aggregator.sets_norms
        if self.run.schedule.max_norm_ratio is not None and not free:
            bound = NormBound(self.run.schedule.max_norm_ratio, self.algorithm)
            updates = bound.screen(updates, self.inquiry.refuse_valid)
        for profile, update in updates:
            if update.weight > 0:  # else the client has no examples
                if self.run.collects:
                    keep(self.run.journal.folder, self.context.round, profile.name, update.tensors)
                yield profile, update
            del update  # or it would stay in memory while the next client trains

    def sealed(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Tensors]]:
        if not self.run.method.aggregator.sums_only:
            raise TypeError("only a rule that declares sums_only adds sealed summands")
        for profile, update in self._train(notes):
            yield profile, update.tensors
            del update  # as above

    def mean(self, total: Tensors, clients: Sequence[str]) -> Aggregate:
        most = sum(self.algorithm.max_weight(self.profiles[name]) for name in clients)
        if self.run.method.pipelines.upload.mechanisms:
            most = max(most, float(len(clients)))  # they make all weights 1
        if not sums.weight(total, most, clients):
            raise TooFewClientsError(0, 1)  # no client has examples
        method, state = self.run.method, self.server_state
        update = sums.mean(total, method.summed_numbers, method.shown_numbers)
        profile = self.profiles[clients[0]]
        layout = self.algorithm.update_layout(state.algorithm_state, profile, self.context)
        try:
            wide = sums.in_float64(layout)
            pipeline, states = method.pipelines.upload, state.transform_states
            update = pipeline.decode(update, states, self.context, wide)
            tensors = dict(update.tensors)
        except MessageError as error:
            raise UserError(
                f"the sum of the updates of {', '.join(clients)} cannot be decoded: {error}; look "
                "after these clients, since a rule that sees only sums cannot tell whose update is "
                "wrong."
            ) from None
        tensors = sums.in_dtypes(tensors, layout)
        return Aggregate(tensors, update.numbers, update.weight, tuple(clients))

    def evaluate(self) -> Iterator[tuple[ClientProfile, Update]]:
        """Each client's scores on its own held-out rows; only numbers come back."""
        request = partial(self.encoded, "evaluate")
        return self.inquiry.ask("evaluate", list(self.instructions), request, lambda name: {})

    def encoded(self, kind: str, name: str) -> Request:
        """A request with the algorithm's instruction to one client, encoded for the download."""
        request = self.inquiry.request(kind, name, self.downloads.encoded(name))
        states = self.run.method.broadcast(self.server_state.transform_states, name)
        return replace(request, transform_states=states)

    def sealed_layout(self, name: str) -> Layout:
        """The layout of a client's update as it crosses the network."""
        state, profile = self.server_state, self.profiles[name]
        return self.run.method.sealed_layout(
            state.algorithm_state, state.transform_states, profile, self.context
        )

    def counting(self, clients: Sequence[str]) -> dict[str, int]:
        """The last counted rounds once the updates of these clients have been counted."""
        used, before = set(clients), self.server_state.last_counted_rounds
        others = {name: last for name, last in before.items() if name not in used}
        return others | dict.fromkeys(sorted(used & self.inquiry.remembering), self.context.round)

    def _train(
        self, notes: Mapping[str, Instruction] | None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The clients' valid updates, encoded and sealed."""

        def request(name: str) -> Request:
            note = notes[name] if notes else Instruction()
            return replace(self.encoded("train", name), aggregator_note=note)

        names = [name for name in self.instructions if notes is None or name in notes]
        spare = 0 if self.replies_awaited is None else max(0, len(names) - self.replies_awaited)
        return self.inquiry.ask(
            "train", names, request, self.sealed_layout, self._validate_sealed, spare
        )

    def _decoded(
        self, updates: Iterator[tuple[ClientProfile, Update]]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The updates with the upload's transforms undone, if they are as the algorithm asks."""
        for profile, update in updates:
            try:
                update = self._decode(profile, update)
            except MessageError as error:
                self.inquiry.refuse_valid(profile.name, str(error))
                continue
            yield profile, update
            del update  # as above

    def _decode(self, profile: ClientProfile, update: Update) -> Update:
        """An update with the upload's transforms undone; raises MessageError if it is not valid."""
        pipeline = self.run.method.of(profile.name).upload
        if not pipeline.transforms:
            return update
        state, context = self.server_state, replace(self.context, client=profile.name)
        layout = self.algorithm.update_layout(state.algorithm_state, profile, self.context)
        update = pipeline.decode(update, state.transform_states, context, layout)
        self._validate(profile, update, layout)
        return update

    def _validate_sealed(self, profile: ClientProfile, update: Update, layout: Layout) -> None:
        """Raise MessageError unless an update is valid as far as it can be read before decoding."""
        method = self.run.method
        if method.aggregator.sums_only or method.of(profile.name).upload.transforms:
            validate_update(update, layout)
        else:
            self._validate(profile, update, layout)

    def _validate(self, profile: ClientProfile, update: Update, layout: Layout) -> None:
        """Raise MessageError unless an update has this layout, and its contents can be."""
        if not self.algorithm.combines:  # a mean needs equal shapes
            layout = {name: largest(form) for name, form in layout.items()}
        most = self.algorithm.max_weight(profile)
        validate_update(update, layout, self.algorithm.numbers, most)
        self.algorithm.validate(update, self.server_state.algorithm_state, profile)


def open_round(
    run: Run,
    round: int,
    server_state: ServerState,
    profiles: Mapping[str, ClientProfile],
    replies_awaited: int | None = None,
    attempt: int = 0,
    required: int = 1,
) -> RoundExchange:
    """The exchange with the clients of one round, in client order.

    Each is first sent the run's files, if it lacks any. One that does not take them is left out.

    replies_awaited: the number of training replies to wait for; None: those of all clients.
    attempt: how often the round was asked for before. required: as in `Exchange`.
    """
    context, algorithm = run.context(round), run.method.algorithm
    places = {name: place for place, name in enumerate(profiles)}
    instructions, asked, delivery = {}, {}, FileDelivery(run, round)
    with run.journal.ledger.time("round"):
        supplied = delivery.deliver(list(profiles))
    for name in supplied:
        counted = server_state.last_counted_rounds.get(name, 0)
        profile = replace(profiles[name], last_counted_round=counted, place=places[name])
        instruction = algorithm.instruction(server_state.algorithm_state, profile, context)
        if instruction is not None:
            instructions[name], asked[name] = instruction, profile
    exchange = RoundExchange(
        run,
        server_state,
        context,
        asked,
        instructions,
        replies_awaited,
        attempt if run.method.aggregator.has_phases else 0,
        required,
    )
    exchange.inquiry.silent += delivery.silent
    return exchange
