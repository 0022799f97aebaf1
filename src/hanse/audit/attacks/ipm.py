"""Inner product manipulation (Xie, Koyejo and Gupta 2020, 1903.03936)."""

from dataclasses import dataclass

from pydantic import PositiveFloat
from torch import Tensor

from hanse.audit.attack import Attack, Updates


@dataclass(frozen=True)
class Ipm(Attack):
    """All attackers send −ε times the mean of the honest updates.

    Xie et al. 2020 ("Fall of Empires", 1903.03936), § 4. The plain mean of n − f honest and f
    hostile updates is (n − f − ε·f)/n times the honest mean: a small ε slows training down, and
    ε > (n − f)/f turns it around. Rules that choose among updates may choose those with a small ε.
    """

    epsilon: PositiveFloat = 2.0

    def sent(self, updates: Updates) -> Tensor:
        return updates.alike(-self.epsilon * updates.mean)
