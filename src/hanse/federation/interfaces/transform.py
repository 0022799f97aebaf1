"""The role of a transform: a codec, or a mechanism of privacy."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.declarations import withdraw
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors


class Transform(ABC):
    """What an update passes on its way: a codec, or a mechanism of privacy.

    The server may hold state (a basis, a clip norm), and `broadcast` says what of it travels with
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
        """What `encode` makes of tensors of this layout."""
        return expected

    def broadcast(self, state: Tensors) -> Tensors:
        """What clients are told of the server's state; by default all of it."""
        return state

    @abstractmethod
    def encode(
        self, tensors: Tensors, memory: Memory, state: Tensors, context: RoundContext
    ) -> Tensors:
        """At the sender."""

    @abstractmethod
    def decode(self, tensors: Tensors, state: Tensors, context: RoundContext) -> Tensors:
        """At the receiver."""

    def finish(self, combined: Aggregate, state: Tensors) -> tuple[Aggregate, Tensors]:
        """On the server, after the updates were combined: the result, and the next state."""
        return combined, state
