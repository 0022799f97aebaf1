"""Model replacement (Bagdasaryan et al. 2020, 1807.00459)."""

from dataclasses import dataclass

from pydantic import PositiveFloat
from torch import Tensor

from hanse.audit.attack import Attack, Updates


@dataclass(frozen=True)
class ModelReplacement(Attack):
    """Each attacker sends its own update times γ, so that the mean becomes the attackers' model.

    Bagdasaryan et al. 2020 (1807.00459), eq. 3: γ·(X − G) of an attacker's model X and the global
    one G. Without `scale`, γ is the weight of all clients over that of the attackers. It plants
    what the attackers' rows teach, such as a label for all texts with a certain word: give them a
    file of such rows (`clients.<name>.data.path`). As it stands it is the plainest attack by size.
    """

    scale: PositiveFloat | None = None  # γ; None: all clients' weight ÷ that of the attackers

    def sent(self, updates: Updates) -> Tensor:
        theirs = updates.own_weights.sum()
        scale = self.scale or float((theirs + updates.honest_weights.sum()) / theirs)
        return scale * updates.own
