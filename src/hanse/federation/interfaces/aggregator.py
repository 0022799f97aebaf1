"""The role of an aggregator: it combines the updates of a round into one."""

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
    """One round's exchange with its clients, as an aggregator sees it."""

    @property
    def profiles(self) -> Mapping[str, ClientProfile]:
        """The clients of the round, in client order."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, whose `combine` an aggregator may call."""

    def ask(
        self, kind: str, instructions: Mapping[str, Instruction], expected: Mapping[str, Layout]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """A phase of the aggregator's own: valid answers in client order."""

    def train(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The round's training: valid updates in client order, encoded and sealed.

        notes: the aggregator's own message to each client; a client without a note is left out.
        """

    def decode(self, client: str, tensors: Tensors) -> Tensors:
        """Decode tensors of a client; client "" stands for a sum over clients."""


class Aggregator(ABC):
    """A rule that combines a round's updates into one."""

    # The aggregator sees no single update: transforms must be linear, and `combine` is impossible.
    sums_only: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = frozenset()  # more than tensors that represent the round
    # Client halves use `client.identity`, which is None for a rule that does not declare this.
    # Silos on other machines then need kits that have the keys of all others.
    needs_identity: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "gives", frozenset(), "aggregate")

    @abstractmethod
    def aggregate(self, exchange: Exchange) -> Aggregate:
        """At the server: ask the clients, and combine their updates."""

    def layout(self, expected: Layout) -> Layout:
        """The layout of sealed tensors."""
        return expected

    def seal(self, update: Update, note: Instruction, client: Client) -> Update:
        """At the client: the last step before an update is sent."""
        return update

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        """At the client: answer a phase of the aggregator's own."""
        raise UserError(f"this client knows no request of the kind {kind!r}.")
