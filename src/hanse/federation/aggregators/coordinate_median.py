"""The coordinate-wise median (Yin et al. 2018, 1803.01498)."""

from dataclasses import dataclass

from torch import Tensor

from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import RobustRule


@dataclass(frozen=True)
class CoordinateMedian(RobustRule):
    """Each coordinate's median over the clients (Yin et al. 2018, 1803.01498, def. 1).

    It bears fewer attackers than half the clients, and needs no number of them; each coordinate
    stays between two honest ones. Of an even number of clients it is the mean of the two middle
    values. Each client counts the same, whatever number of examples it says that it has.

    For LoRA it is taken of each factor as it travels, which is inexact: the product of two medians
    is no median of the products.
    """

    def combined(self, received: Received, attackers: int) -> Aggregate:
        everyone = range(len(received))
        return received.aggregate(received.coordinates(middle, everyone), everyone)


def middle(values: Tensor) -> Tensor:
    """(m,) the median of each column of (n, m) values."""
    n, ordered = len(values), values.sort(dim=0).values
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
