"""RFA, the geometric median (Pillutla, Kakade and Harchaoui 2022, 1912.13445)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hanse.federation.interfaces.declarations import WEIGHED
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products, squared_distances
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import RobustRule

SETTLED = 1e-9  # relative change of each weight in one step


@dataclass(frozen=True)
class GeometricMedian(RobustRule):
    """The point v with the least Σ αₖ‖xₖ − v‖ to the updates xₖ; half the clients may be hostile.

    RFA (1912.13445), alg. 2, the smoothed Weiszfeld algorithm: v is the mean of the updates by
    weights ∝ αₖ / max(ν, ‖xₖ − v‖), over and over from the plain mean. The distances follow from
    those between updates, so steps are cheap, and there are as many as it takes (at most `steps`).

    αₖ is the same for each client, unless `weighted` is set: the paper has numbers of examples,
    which a hostile client may invent. Distances are between updates as they travel, and between
    LoRA's products where the updates are factors (`federation/robust/distances.py`). An algorithm
    that averages such products gets the weights of the median, and cuts the rank as it always does.
    """

    gives: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors")

    smoothing: PositiveFloat = 1e-6  # ν, the least distance
    steps: PositiveInt = 1000
    weighted: bool = False  # whether clients count by their numbers of examples

    def combined(self, received: Received, attackers: int) -> Aggregate:
        distances = squared_distances(inner_products(received))
        start = torch.tensor(received.weights(self.weighted), dtype=torch.float64)
        weights = self.median_weights(distances, start / start.sum())
        return received.averaged(weights.tolist(), range(len(received)))

    def median_weights(self, distances: Tensor, start: Tensor) -> Tensor:
        """(n,) weights whose mean of the updates is their median.

        distances: (n, n) squared. start: (n,) the weights α, whose sum is 1.
        """
        weights = start
        for _ in range(self.steps):
            between = distances @ weights  # Σⱼ wⱼ‖xₖ − xⱼ‖² = ‖xₖ − v‖² + Σⱼ wⱼ‖xⱼ − v‖²
            squares = between - weights @ between / 2
            new = start / squares.clamp(min=self.smoothing**2).sqrt()
            new /= new.sum()
            if bool(((new - weights).abs() <= SETTLED * weights).all()):
                return new
            weights = new
        return weights
