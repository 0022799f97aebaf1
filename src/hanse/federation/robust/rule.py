"""The common half of rules that bear attackers: how many clients they need and bear."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Aggregator, Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.received import Received
from hanse.registry import name_of

# A number of clients, or a share of those of a round, rounded down.
Attackers = NonNegativeInt | Annotated[float, Field(gt=0, lt=0.5)]


@dataclass(frozen=True)
class RobustRule(Aggregator):
    """A rule that reads all updates of a round before it combines any, since some may be hostile.

    No rule trusts what a client says of itself: numbers of examples are ignored unless a setting
    says otherwise, and the journal gets medians of what clients report.
    """

    # It needs as many clients as this without attackers, and as many more for each of them.
    least: ClassVar[int] = 3
    per_attacker: ClassVar[int] = 0

    def expected(self, clients: int) -> int:
        """The number f of attackers among so many clients that the rule is to bear."""
        return 0

    def required(self, attackers: int) -> int:
        """The fewest updates that the rule combines."""
        return self.least + self.per_attacker * attackers

    def require_clients(self, clients: int) -> None:
        attackers = self.expected(clients)
        if clients < (required := self.required(attackers)):
            raise UserError(self._too_few(clients, required, attackers))

    def fewest(self, clients: int) -> int:
        return self.required(self.expected(clients))

    def describe(self, clients: int, whole: bool = False) -> tuple[str, ...]:
        weighted = ("clients count by the examples that they declare",)
        phrases = weighted if getattr(self, "weighted", False) else ()
        return (self.bound(clients), *phrases, *super().describe(clients))

    def bound(self, clients: int) -> str:
        """A phrase on the hostile clients among so many that the rule bears."""
        return f"hostile clients are borne if they are fewer than half of {clients}"

    def _too_few(self, clients: int, required: int, attackers: int) -> str:
        rule = name_of(self)
        return (
            f"{rule} needs at least {required} clients in a round, and there are {clients}; "
            "let more take part, or choose the aggregator mean, which bears no attacker either."
        )

    def aggregate(self, exchange: Exchange) -> Aggregate:
        clients = len(exchange.profiles)
        attackers, required = self.expected(clients), self.fewest(clients)
        received = Received.of(exchange)
        if len(received) < required:
            raise TooFewClientsError(len(received), required)
        return self.combined(received, attackers)

    @abstractmethod
    def combined(self, received: Received, attackers: int) -> Aggregate:
        """Combine the updates, of which so many may be hostile."""


@dataclass(frozen=True)
class CountingRule(RobustRule):
    """A rule that must be told how many attackers there may be."""

    # f: how many clients of a round may be hostile, or their share, rounded down.
    attackers: Attackers = 0.2

    def expected(self, clients: int) -> int:
        if isinstance(self.attackers, int):
            return self.attackers
        return math.floor(self.attackers * clients + 1e-9)  # 0.3 · 10 is below 3 as a product

    def bound(self, clients: int) -> str:
        if attackers := self.expected(clients):
            return f"{attackers} hostile {_plural('client', attackers)} of {clients} can be borne"
        reason = ""
        if self.attackers:
            reason = (
                f": aggregator.{name_of(self)}.attackers is {self.attackers:g}, and this share of "
                f"{clients} is less than one; name their number, or let more clients take part"
            )
        return f"no hostile client is borne{reason}"

    def _too_few(self, clients: int, required: int, attackers: int) -> str:
        rule, most = name_of(self), (clients - self.least) // max(1, self.per_attacker)
        borne = f"{attackers} {_plural('attacker', attackers)}"
        lower = f"set aggregator.{rule}.attackers to at most {most}, " if most >= 0 else ""
        return (
            f"{rule} needs at least {required} clients in a round to bear {borne}, and there are "
            f"{clients}; let more take part, {lower}or choose the aggregator coordinate_median."
        )


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"
