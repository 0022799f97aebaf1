"""The role of a transform: a codec, or a mechanism of privacy."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.declarations import withdraw
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors


class Transform(ABC):
    """A step that tensors pass between client and server: a codec, or a mechanism of privacy.

    The server may hold state (a basis, a clip norm); `broadcast` selects the part that travels with
    every request. The sender may keep memory (the error of a lossy codec).
    """

    linear: ClassVar[bool] = False  # encode commutes with sums
    payloads: ClassVar[tuple[str, ...]] = ("change",)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "linear", False, "encode", "decode")

    def init(self, expected: Layout) -> Tensors:
        """The server's state before the first round."""
        return {}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The layout of encoded tensors."""
        return expected

    def broadcast(self, state: Tensors) -> Tensors:
        """The part of the server's state that every request carries; by default all of it."""
        return state

    @abstractmethod
    def encode(
        self, tensors: Tensors, memory: Memory, state: Tensors, context: RoundContext
    ) -> Tensors:
        """Encode at the sender."""

    @abstractmethod
    def decode(self, tensors: Tensors, state: Tensors, context: RoundContext) -> Tensors:
        """Decode at the receiver."""

    def finish(self, aggregate: Aggregate, state: Tensors) -> tuple[Aggregate, Tensors]:
        """Finish an aggregate on the server; return it with the next state."""
        return aggregate, state
