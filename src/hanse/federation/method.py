"""The federated method of a run: algorithm, aggregator and transforms as one record."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from hanse.federation import sums
from hanse.federation.compatibility.parts import check
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import IN_AGGREGATE, NUMBERS
from hanse.federation.interfaces.halves import Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.pipeline import Pipeline, Pipelines, TransformStates
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, layout, map_tensors, varies
from hanse.tensors.serialization import own_storage
from hanse.tensors.table import Table


@dataclass(frozen=True)
class Method:
    """The parts that server and clients share; raises UserError if they do not fit together.

    own: the pipelines of clients with compression of their own, by client.
    """

    algorithm: Algorithm
    aggregator: Aggregator
    pipelines: Pipelines = field(default_factory=Pipelines)
    own: Mapping[str, Pipelines] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.algorithm, self.aggregator, self.pipelines, self.own)

    def of(self, client: str) -> Pipelines:
        """The pipelines of one client."""
        return self.own.get(client, self.pipelines)

    def for_client(self, client: str) -> "Method":
        """Copies of the parts that one client has: those of the server share bytes only."""
        algorithm, aggregator = copy(self.algorithm), copy(self.aggregator)
        return Method(algorithm, aggregator, self.of(client).for_client())

    @property
    def sends_files(self) -> bool:
        """True if clients are sent files once: the algorithm's, or weights of transforms."""
        return type(self.algorithm).prepare is not Algorithm.prepare or bool(self._with_weights)

    @property
    def _with_weights(self) -> dict[str, Transform]:
        """The transforms that may have weights, by place."""
        return {
            pipeline.place(index): transform
            for pipeline in self.pipelines.both
            for index, transform in enumerate(pipeline.transforms)
            if type(transform).weights is not Transform.weights
        }

    @property
    def hides_updates(self) -> bool:
        """True if each client's update is hidden in the aggregate alone."""
        mechanisms = self.pipelines.upload.mechanisms
        return any(mechanism.noise & IN_AGGREGATE for mechanism in mechanisms)

    def prepare(self, server: Server, folder: Path) -> dict[str, Path]:
        """Write the files that every client is sent once, by name: weights go by their place."""
        files = {}
        for place, transform in self._with_weights.items():
            files[place] = folder / f"{place}.safetensors"
            weights = map_tensors(Tensor.contiguous, transform.weights())
            save_file(own_storage(weights), files[place])
        return {**files, **self.algorithm.prepare(server, folder)}

    def with_files(self, files: Mapping[str, Path]) -> "Method":
        """The same with the weights of transforms, which are among the run's files."""
        own = {client: pipelines.with_files(files) for client, pipelines in self.own.items()}
        return replace(self, pipelines=self.pipelines.with_files(files), own=own)

    def init_transforms(
        self, state: State, profiles: Collection[ClientProfile], contexts: Sequence[RoundContext]
    ) -> dict[str, Tensors]:
        """The state of every transform before the first round.

        Transforms of the upload begin with the layout of updates if it is the same for all clients
        and rounds; otherwise with the model's, as those of the download do.

        state: the algorithm's. contexts: those of all rounds.
        """
        if not any(pipeline.transforms for pipeline in self.all_pipelines):
            return {}
        model = layout(self.algorithm.model(state))
        updates = self._common_layout(state, profiles, contexts) or model
        states: dict[str, Tensors] = {}
        for pipeline in self.all_pipelines:
            expected = updates if pipeline.direction == "upload" else model
            states = pipeline.init(expected) | states  # mechanisms are common to all
        return states

    def _common_layout(
        self, state: State, profiles: Collection[ClientProfile], contexts: Sequence[RoundContext]
    ) -> Layout | None:
        """The layout that the updates of all clients and rounds have; None if they differ."""
        asked = [(profile, context) for profile in profiles for context in contexts[:1]]
        asked += [(profile, context) for profile in [*profiles][:1] for context in contexts[1:]]
        layouts = [self.algorithm.update_layout(state, *place) for place in asked]
        alike = all(not varies(own) and Table.of(own) == Table.of(layouts[0]) for own in layouts)
        return layouts[0] if layouts and alike else None

    def broadcast(self, states: TransformStates, client: str) -> dict[str, Tensors]:
        """The part of the transforms' states that every request to a client carries."""
        upload, download = self.of(client).both
        return upload.broadcast(states) | download.broadcast(states)

    def finish(
        self, aggregate: Aggregate, states: TransformStates, context: RoundContext
    ) -> tuple[Aggregate, dict[str, Tensors]]:
        """Finish an aggregate by all transforms of both directions; codecs of clients come first.

        Return it with the next state of every transform.
        """
        following: dict[str, Tensors] = {}
        for pipeline in self.all_pipelines:
            aggregate, next_states = pipeline.finish(aggregate, states, context)
            following |= next_states
        return aggregate, following

    def describe(self, clients: int) -> tuple[str, ...]:
        """Phrases for users on a round of so many clients, as `Aggregator.describe` has them."""
        whole = any(part.whole_numbers for part in self.pipelines.upload.mechanisms)
        return self.aggregator.describe(clients, whole)

    def least_updates(self, context: RoundContext) -> int:
        """The fewest updates of a round for which all mechanisms keep what they promise."""
        mechanisms = self.pipelines.upload.mechanisms
        return max((part.least_updates(context) for part in mechanisms), default=1)

    @property
    def withholds_scores(self) -> str:
        """The reason why no score of a single client may leave it; or empty."""
        if self.aggregator.sums_only:
            return f"{type(self.aggregator).__name__} sees only sums"
        hiding = [part for part in self.pipelines.upload.mechanisms if part.withholds_scores]
        return f"{type(hiding[0]).__name__} protects no scores" if hiding else ""

    @property
    def summed_numbers(self) -> Sequence[str]:
        """The numbers that a summand contains for the algorithm."""
        return self.algorithm.numbers if NUMBERS in self.aggregator.gives else ()

    @property
    def shown_numbers(self) -> Sequence[str]:
        """The numbers that a summand contains for the journal alone.

        There are none beside a mechanism of privacy, which would have to protect them, too.
        """
        if NUMBERS not in self.aggregator.gives or self.pipelines.upload.mechanisms:
            return ()
        return [name for name in sums.SHOWN if name not in self.algorithm.numbers]

    def encoded_layout(
        self, state: State, states: TransformStates, profile: ClientProfile, context: RoundContext
    ) -> Layout:
        """The layout of a client's encoded update; state: the algorithm's, states: transforms'."""
        expected = self.algorithm.update_layout(state, profile, context)
        return self.of(profile.name).upload.layout(expected, states)

    def summand_layout(
        self, state: State, states: TransformStates, profile: ClientProfile, context: RoundContext
    ) -> Layout:
        """The layout of a client's summand under a rule that sees sums only."""
        expected = self.encoded_layout(state, states, profile, context)
        return sums.summand_layout(expected, self.summed_numbers, self.shown_numbers)

    def sealed_layout(
        self, state: State, states: TransformStates, profile: ClientProfile, context: RoundContext
    ) -> Layout:
        """The layout of a client's update as it crosses the network."""
        if not self.aggregator.sums_only:
            return self.encoded_layout(state, states, profile, context)
        return self.aggregator.layout(self.summand_layout(state, states, profile, context))

    def seal(self, update: Update, note: Instruction, client: Client) -> Update:
        """At the client: an encoded update as it crosses the network.

        Under a rule that sees sums only, weight and numbers leave the client in the summand alone.
        """
        if not self.aggregator.sums_only:
            return update
        summand = sums.summand(update, self.summed_numbers, self.shown_numbers)
        return Update(self.aggregator.seal(summand, note, client))

    @property
    def all_pipelines(self) -> list[Pipeline]:
        """The pipelines of both directions: the clients' own, then the common ones."""
        return [p for pipelines in (*self.own.values(), self.pipelines) for p in pipelines.both]
