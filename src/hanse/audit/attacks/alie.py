"""A little is enough (Baruch, Baruch and Goldberg 2019, 1902.06156)."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor

from hanse.audit.attack import Attack, Updates
from hanse.errors import UserError


@dataclass(frozen=True)
class Alie(Attack):
    """All attackers send the mean of the honest updates, moved by z of their standard deviations.

    Baruch et al. 2019 (1902.06156), alg. 3: each coordinate stays within the honest ones' spread,
    so that neither medians nor distances find it. Without `z` it is the largest at which s honest
    clients are expected to be farther from the mean, with whom the attackers have the majority:
    Φ(z) = (n − f − s)/(n − f), s = ⌊n/2 + 1⌋ − f, of n clients with f attackers. This is a
    reconstruction. For few attackers z is small: 0.14 for 2 of 11.

    To move all coordinates down cancels in a head whose two outputs mirror each other; `against`
    moves each coordinate away from the sign of its mean, which is ours.
    """

    z: PositiveFloat | None = None  # standard deviations; None: by the numbers of clients
    direction: Literal["down", "against"] = "down"

    def require(self, attackers: int, clients: int) -> None:
        if self.z is None and quantile(attackers, clients) >= 1:
            raise UserError(
                f"with {attackers} of {clients} clients the attackers of alie have the majority "
                "alone, for which its z is not defined; set attack.alie.z, such as 1.5."
            )

    def sent(self, updates: Updates) -> Tensor:
        attackers = len(updates.own)
        z = self.z or largest_z(attackers, attackers + len(updates.honest))
        sign = updates.mean.sign() if self.direction == "against" else 1.0
        return updates.alike(updates.mean - z * sign * updates.deviation)


def quantile(attackers: int, clients: int) -> float:
    """(n − f − s)/(n − f), the share of honest clients that may be nearer to the mean."""
    supporters = clients // 2 + 1 - attackers
    return (clients - attackers - supporters) / (clients - attackers)


def largest_z(attackers: int, clients: int) -> float:
    """The z of the quantile; 0 where the attackers would need more than half of the honest."""
    share = min(quantile(attackers, clients), 1 - 1e-6)  # a round may have fewer honest clients
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0
