"""The role of an aggregator: it combines the updates of a round into one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Protocol

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.declarations import withdraw
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors.named import Layout, Tensors


class TooFewClientsError(Exception):
    """Too few clients are left in a phase: the round is paused, and all its phases are repeated.

    left: how many answered. required: how many the rule needs.
    """

    def __init__(self, left: int, required: int) -> None:
        super().__init__(f"{left} clients are left, and {required} are required")
        self.left, self.required = left, required


class Exchange(Protocol):
    """One round's exchange with its clients, as an aggregator sees it."""

    @property
    def profiles(self) -> Mapping[str, ClientProfile]:
        """The clients of the round, in client order."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, whose `combine` an aggregator that gives UPDATES calls."""

    def updates(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The round's training: valid, decoded updates with a positive weight, in client order.

        notes: the aggregator's own message to each client; a client without a note is left out.
        """

    def sealed(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Tensors]]:
        """The same for a rule that sees sums only: what `Aggregator.seal` made of each summand."""

    def mean(self, total: Tensors, clients: Sequence[str]) -> Aggregate:
        """The aggregate of these clients from the sum of their summands."""

    def ask(
        self, kind: str, instructions: Mapping[str, Instruction], expected: Mapping[str, Layout]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """A phase of the aggregator's own: valid answers in client order."""


class Aggregator(ABC):
    """A rule that combines a round's updates into one.

    Server half: aggregate, layout. Client half: seal and handle, for a rule with phases.

    A rule either reads each update (`Exchange.updates`), or declares `sums_only` and adds summands
    (`Exchange.sealed`): an update's tensors times its weight, the weight, and the weighted numbers
    that the algorithm declares, so that the mean follows from their sum (`federation/sums.py`).
    """

    # The rule sees no single update: transforms must be linear, and `combine` is impossible.
    sums_only: ClassVar[bool] = False
    # Contents of the aggregate (MEAN, NUMBERS), and UPDATES for a rule that honours `combine`. What
    # is not declared is not given.
    gives: ClassVar[frozenset[str]] = frozenset()
    # Client halves use `client.identity`, which is None for a rule that does not declare this.
    # Silos on other machines then need kits that have the keys of all others.
    needs_identity: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "gives", frozenset(), "aggregate")

    @property
    def has_phases(self) -> bool:
        """True if the rule overrides `handle` or `seal`: clients take part in its own phases."""
        rule = type(self)
        return (rule.handle, rule.seal) != (Aggregator.handle, Aggregator.seal)

    @abstractmethod
    def aggregate(self, exchange: Exchange) -> Aggregate:
        """At the server: ask the clients, and combine their updates.

        Raises TooFewClientsError if too few are left in any phase.
        """

    def layout(self, expected: Layout) -> Layout:
        """The layout of a sealed summand, from that of the summand."""
        return expected

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        """At the client: hide a summand, which then leaves the client."""
        return summand

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        """At the client: answer a phase of the aggregator's own."""
        raise UserError(f"this client knows no request of the kind {kind!r}.")
