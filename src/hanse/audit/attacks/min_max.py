"""The min-max attack (Shejwalkar and Houmansadr 2021, NDSS)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hanse.audit.attack import Attack, Updates

EXACT = "donot_use_mm_for_euclid_dist"  # of all ways to compute distances


@dataclass(frozen=True)
class MinMax(Attack):
    """All attackers send μ + γ·p, as far from the honest mean μ as two honest clients are apart.

    Shejwalkar and Houmansadr 2021 ("Manipulating the Byzantine"), eq. 10: γ is the largest with
    max ‖μ + γ·p − xᵢ‖ ≤ max ‖xᵢ − xⱼ‖ over the honest updates x. The paper searches for it by
    halving; here each client's quadratic equation is solved. It needs no knowledge of the rule.
    """

    # p: minus the standard deviations, minus the mean, or minus the mean's signs
    direction: Literal["deviation", "mean", "sign"] = "deviation"

    def sent(self, updates: Updates) -> Tensor:
        honest, mean = updates.honest, updates.mean
        towards = {"deviation": updates.deviation, "mean": mean, "sign": mean.sign()}
        length = towards[self.direction].norm()
        if length == 0:  # all honest updates are alike, or nothing was learned
            return updates.alike(mean)
        unit = -towards[self.direction] / length
        return updates.alike(mean + largest_step(honest, mean, unit) * unit)


def largest_step(honest: Tensor, mean: Tensor, unit: Tensor) -> float:
    """The largest γ with ‖μ + γ·p − xᵢ‖ ≤ max ‖xᵢ − xⱼ‖ for all i.

    honest: (h, d). mean: (d,) μ. unit: (d,) p of norm 1.
    """
    apart = mean - honest
    along, squares = apart @ unit, apart.square().sum(dim=1)
    farthest = torch.cdist(honest, honest, compute_mode=EXACT).max().square()
    steps = (along.square() + farthest - squares).clamp(min=0).sqrt() - along
    return float(steps.min())
