"""A list of transforms as one: encoded in order, decoded and finished in reverse."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors

TransformStates = Mapping[str, Tensors]  # the server's state of each transform, by its place


@dataclass(frozen=True)
class Pipeline:
    """The transforms of one direction ("upload" or "download")."""

    direction: str
    transforms: tuple[Transform, ...] = ()

    def place(self, index: int) -> str:
        """The key of the state and memory of the transform at `index`."""
        return f"{self.direction}.{index}"

    def init(self, expected: Layout) -> dict[str, Tensors]:
        """The state of every transform before the first round."""
        states: dict[str, Tensors] = {}
        for index, transform in enumerate(self.transforms):
            states[self.place(index)] = transform.init(expected)
            expected = transform.layout(expected, states[self.place(index)])
        return states

    def layout(self, expected: Layout, states: TransformStates) -> Layout:
        """The layout of encoded tensors."""
        for index, transform in enumerate(self.transforms):
            expected = transform.layout(expected, states.get(self.place(index), {}))
        return expected

    def broadcast(self, states: TransformStates) -> dict[str, Tensors]:
        """The part of the states that every request carries, by place."""
        return {
            self.place(index): transform.broadcast(states.get(self.place(index), {}))
            for index, transform in enumerate(self.transforms)
        }

    def encode(
        self,
        tensors: Tensors,
        memory: dict[str, Memory],
        states: TransformStates,
        context: RoundContext,
    ) -> Tensors:
        """Encode at the sender; `memory` holds each transform's memory by place, and is updated."""
        for index, transform in enumerate(self.transforms):
            place = self.place(index)
            own: dict[str, Tensor] = memory.setdefault(place, {})
            tensors = transform.encode(tensors, own, states.get(place, {}), context)
        return tensors

    def decode(self, tensors: Tensors, states: TransformStates, context: RoundContext) -> Tensors:
        """Decode at the receiver."""
        for index, transform in reversed(list(enumerate(self.transforms))):
            tensors = transform.decode(tensors, states.get(self.place(index), {}), context)
        return tensors

    def finish(
        self, aggregate: Aggregate, states: TransformStates
    ) -> tuple[Aggregate, dict[str, Tensors]]:
        """Finish an aggregate on the server; return it with every transform's next state."""
        following: dict[str, Tensors] = {}
        for index, transform in reversed(list(enumerate(self.transforms))):
            place = self.place(index)
            aggregate, following[place] = transform.finish(aggregate, states.get(place, {}))
        return aggregate, following
