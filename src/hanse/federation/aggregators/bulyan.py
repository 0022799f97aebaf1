"""Bulyan (El Mhamdi et al. 2018, 1802.07927)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from hanse.federation.aggregators.coordinate_median import middle
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products, squared_distances
from hanse.federation.robust.krum_scores import chosen
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import CountingRule


@dataclass(frozen=True)
class Bulyan(CountingRule):
    """Krum chooses θ = n − 2f updates; each coordinate is the mean of θ − 2f values among theirs.

    El Mhamdi et al. 2018 (1802.07927), § 4: Krum chooses one update after another, each among those
    that are left. Of each coordinate the θ − 2f values nearest to the median are averaged. It needs
    n ≥ 4f + 3 clients. The 2f clients that are left out are named in the log.

    Each client counts the same, whatever number of examples it says that it has. For LoRA the
    second step is taken of each factor as it travels, which is inexact for their product.
    """

    payloads: ClassVar[tuple[str, ...]] = ("change", "factors")
    least: ClassVar[int] = 3
    per_attacker: ClassVar[int] = 4

    def combined(self, received: Received, attackers: int) -> Aggregate:
        distances = squared_distances(inner_products(received))
        kept = sorted(chosen(distances, attackers, len(received) - 2 * attackers))
        received.tell_excluded(kept, "Krum has chosen all other updates first")
        nearest = partial(near_median, number=len(kept) - 2 * attackers)
        return received.aggregate(received.coordinates(nearest, kept), kept)


def near_median(values: Tensor, number: int) -> Tensor:
    """(m,) the mean of this number of values nearest to the median of each column of (n, m)."""
    ordered = values.sort(dim=0).values
    order = (ordered - middle(values)).abs().sort(dim=0, stable=True).indices
    return ordered.gather(0, order[:number]).mean(dim=0)
