"""The federated method of a run: algorithm, aggregator and transforms as one record."""

from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial

from hanse.federation.compatibility import check
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile
from hanse.federation.pipeline import Pipeline, TransformStates
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors


@dataclass(frozen=True)
class Method:
    """The parts that server and clients share; raises UserError if they do not fit together."""

    algorithm: Algorithm
    aggregator: Aggregator
    upload: Pipeline = field(default_factory=partial(Pipeline, "upload"))
    download: Pipeline = field(default_factory=partial(Pipeline, "download"))

    def __post_init__(self) -> None:
        check(self.algorithm, self.upload.transforms, self.aggregator)

    def copy(self) -> "Method":
        """Copies of all parts, for a client in the server's process: they share bytes only."""
        upload, download = (
            replace(pipeline, transforms=tuple(map(copy, pipeline.transforms)))
            for pipeline in (self.upload, self.download)
        )
        return Method(copy(self.algorithm), copy(self.aggregator), upload, download)

    def init_transforms(self, layout: Layout) -> dict[str, Tensors]:
        """The state of every transform before the first round; layout: the model's."""
        return self.upload.init(layout) | self.download.init(layout)

    def broadcast(self, states: TransformStates) -> dict[str, Tensors]:
        """The part of the transforms' states that every request carries."""
        return self.upload.broadcast(states) | self.download.broadcast(states)

    def sealed_layout(
        self, state: State, states: TransformStates, profile: ClientProfile, context: RoundContext
    ) -> Layout:
        """The layout of a client's update as it crosses the network.

        state: the algorithm's. states: the transforms'.
        """
        layout = self.algorithm.update_layout(state, profile, context)
        return self.aggregator.layout(self.upload.layout(layout, states))
