"""The coordinate-wise trimmed mean (Yin et al. 2018, 1803.01498)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import CountingRule


@dataclass(frozen=True)
class TrimmedMean(CountingRule):
    """Each coordinate's mean without the f largest and the f smallest values (def. 2 there).

    It needs n ≥ 2f + 1 clients, and with f = 0 it is the plain mean of the updates. Each client
    counts the same, whatever number of examples it says that it has.

    For LoRA it is taken of each factor as it travels, which is inexact: the product of two trimmed
    means is no trimmed mean of the products.
    """

    least: ClassVar[int] = 1
    per_attacker: ClassVar[int] = 2

    def combined(self, received: Received, attackers: int) -> Aggregate:
        everyone = range(len(received))
        tensors = received.coordinates(partial(trimmed, each=attackers), everyone)
        return received.aggregate(tensors, everyone)


def trimmed(values: Tensor, each: int) -> Tensor:
    """(m,) the mean of each column of (n, m) values without this number of values at each end."""
    ordered = values.sort(dim=0).values
    return ordered[each : len(ordered) - each].mean(dim=0)
