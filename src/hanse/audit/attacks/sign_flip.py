"""The attackers' own updates, turned around."""

from dataclasses import dataclass

from pydantic import PositiveFloat
from torch import Tensor

from hanse.audit.attack import Attack, Updates


@dataclass(frozen=True)
class SignFlip(Attack):
    """Each attacker sends −factor times the update that it has trained.

    With f of n clients the plain mean goes backwards as soon as f·factor > n − f.
    """

    factor: PositiveFloat = 10.0

    def sent(self, updates: Updates) -> Tensor:
        return -self.factor * updates.own
