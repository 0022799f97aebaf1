"""Centred clipping (Karimireddy, He and Jaggi 2021, 2012.10333)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import RobustRule


@dataclass(frozen=True)
class CentredClipping(RobustRule):
    """The centre v ← v + mean of (xₖ − v)·min(1, τ/‖xₖ − v‖) of the updates xₖ, over and over.

    Karimireddy et al. 2021 (2012.10333), alg. 2. It begins with v = 0, the model before the round,
    and with one step it shortens each update to τ. The paper begins with the last round's v, which
    suits its clients, who send momenta; hanse's rules keep nothing between rounds. The median of
    the distances from v as τ, in each step, is ours.

    Each client counts the same, unless `weighted` is set, since its number of examples is its own
    word. Distances are between updates as they travel.
    """

    payloads: ClassVar[tuple[str, ...]] = ("change",)

    radius: PositiveFloat | None = None  # τ; None: the median of the distances from v
    steps: PositiveInt = 3
    weighted: bool = False  # whether clients count by their numbers of examples

    def combined(self, received: Received, attackers: int) -> Aggregate:
        weights = torch.tensor(received.weights(self.weighted), dtype=torch.float64)
        centre = self.coefficients(inner_products(received), weights / weights.sum())
        return received.aggregate(received.combination(centre.tolist()), range(len(received)))

    def coefficients(self, products: Tensor, weights: Tensor) -> Tensor:
        """(n,) coefficients of the updates whose sum is the centre.

        products: (n, n) inner products of the updates. weights: (n,) of the clients; they sum to 1.
        """
        centre = torch.zeros_like(weights)
        for _ in range(self.steps):
            to_centre = products @ centre
            squares = products.diagonal() - 2 * to_centre + centre @ to_centre
            distances = squares.clamp(min=0).sqrt()
            radius = self.radius or float(distances.quantile(0.5))
            nearer = torch.where(distances > radius, radius / distances, 1.0)
            centre = centre * (1 - weights @ nearer) + weights * nearer
        return centre
