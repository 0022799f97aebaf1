"""The role of an aggregator: combines the updates of a round into one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.declarations import withdraw
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors.named import Layout, Tensors


class Exchange(Protocol):
    """One round's conversation with its clients, as an aggregator sees it."""

    @property
    def profiles(self) -> Mapping[str, ClientProfile]:
        """The clients of the round, in client order."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, for one that combines by itself."""

    def ask(
        self, kind: str, instructions: Mapping[str, Instruction], expected: Mapping[str, Layout]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """A phase of the aggregator's own: answers in client order, past the schema gate."""

    def train(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The round's training: encoded and sealed updates in client order, past the gate.

        notes: what the aggregator tells each client along; a client without a note is left out.
        """

    def decode(self, client: str, tensors: Tensors) -> Tensors:
        """Undo the transforms of `client`'s tensors ("": those of a sum over clients)."""


class Aggregator(ABC):
    """How a round's updates become one."""

    # It never sees a single update, so transforms must be linear, and no algorithm gets updates.
    sums_only: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = frozenset()  # beside tensors that stand for the round's

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "gives", frozenset(), "aggregate")

    @abstractmethod
    def aggregate(self, exchange: Exchange) -> Aggregate:
        """On the server: ask, and combine what comes back."""

    def layout(self, expected: Layout) -> Layout:
        """What `seal` makes of tensors of this layout."""
        return expected

    def seal(self, update: Update, note: Instruction, client: Client) -> Update:
        """At the client: the last thing that happens to an update."""
        return update

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        """At the client: answer a phase of the aggregator's own."""
        raise UserError(f"this client knows no request of the kind {kind!r}.")
