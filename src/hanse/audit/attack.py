"""The role of an attack: what hostile clients of a simulation send in place of their updates."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from hanse.errors import UserError
from hanse.registry import name_of, suggestion

Name = Annotated[str, Field(min_length=1, max_length=200)]
# Their number, or their share of all clients, rounded down; or their names.
Attackers = PositiveInt | Annotated[float, Field(gt=0, lt=1)] | tuple[Name, ...]


@dataclass(frozen=True)
class Updates:
    """The updates of one round as rows in float64, with all that their d numbers are at the server.

    own: (f, d) what the attackers have trained. honest: (h, d) what the other clients send; the
        attackers' own if no other client takes part. Both have at least one row.
    own_weights, honest_weights: (f,) and (h,) the weights of these updates.
    draws: seeded by the run's seed and the round.
    """

    own: Tensor
    honest: Tensor
    own_weights: Tensor
    honest_weights: Tensor
    draws: torch.Generator

    @property
    def mean(self) -> Tensor:
        """(d,) the plain mean of the honest updates."""
        return self.honest.mean(dim=0)

    @property
    def deviation(self) -> Tensor:
        """(d,) the standard deviation of the honest updates (n − 1), 0 of a single one."""
        return self.honest.std(dim=0, correction=min(1, len(self.honest) - 1))

    def alike(self, update: Tensor) -> Tensor:
        """(f, d) one update of (d,) numbers for each attacker."""
        return update.expand_as(self.own)


@dataclass(frozen=True)
class Attack(ABC):
    """Hostile clients of a simulation: they train as all do, and send something else.

    They agree with each other, and know the exact updates of all honest clients before they send
    theirs. No real attacker has it as easy; a rule that bears them bears weaker ones, as far as
    these follow the same plan. Weights and reported numbers stay those of their training.
    """

    attackers: Attackers = 0.2  # their number or share, the last clients in order; or their names

    @property
    def name(self) -> str:
        """The attack's name in messages: its file's in the package, its class's elsewhere."""
        return name_of(self) if type(self).__module__.startswith("hanse.") else type(self).__name__

    def names(self, clients: Sequence[str]) -> tuple[str, ...]:
        """The attackers among the clients of a run; raises UserError if there can be none."""
        if isinstance(self.attackers, tuple):
            named = self.attackers
        else:
            named = tuple(clients[len(clients) - self._number(len(clients)) :])
        place = f"attack.{self.name}.attackers"
        if unknown := [name for name in named if name not in clients]:
            raise UserError(
                f"{place} names {unknown[0]}, which takes no part"
                f"{suggestion(unknown[0], clients)}; the clients are {', '.join(clients):.500}."
            )
        if not 0 < len(set(named)) < len(clients):
            raise UserError(
                f"{place} makes {len(set(named))} of {len(clients)} clients hostile; let there be "
                "at least one attacker and one honest client."
            )
        return named

    def _number(self, clients: int) -> int:
        if isinstance(self.attackers, float):
            return math.floor(self.attackers * clients + 1e-9)
        return min(clients, int(self.attackers))  # type: ignore[arg-type]

    def require(self, attackers: int, clients: int) -> None:  # noqa: B027 (any numbers will do)
        """Raise UserError for numbers of attackers and clients with which it means nothing."""

    @abstractmethod
    def sent(self, updates: Updates) -> Tensor:
        """(f, d) what the attackers send in this round, a row each in the order of `own`."""
