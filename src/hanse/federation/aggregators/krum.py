"""Krum and multi-Krum (Blanchard et al. 2017, NeurIPS)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import PositiveInt

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products, squared_distances
from hanse.federation.robust.krum_scores import ranked
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import CountingRule


@dataclass(frozen=True)
class Krum(CountingRule):
    """The mean of the updates that are nearest to others; all others are left out.

    Blanchard et al. 2017 ("Machine learning with adversaries"), § 4: an update's score is the sum
    of the n − f − 2 smallest squared distances to other updates. The `keep` updates of the lowest
    scores are averaged: 1 is Krum, more are multi-Krum. It needs n ≥ 2f + 3 clients. An honest
    client whose data are unlike all others' is left out, too, and the log names it.

    Each kept update counts the same, whatever number of examples its client says that it has,
    unless `weighted` is set. An algorithm that combines updates by itself gets those that are kept;
    what it does with their rank is its own affair. Distances are between updates as they travel,
    and between LoRA's products where the updates are factors (`federation/robust/distances.py`).
    """

    gives: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors")
    least: ClassVar[int] = 3
    per_attacker: ClassVar[int] = 2

    keep: PositiveInt | None = None  # updates that are averaged; None: n − f
    weighted: bool = False  # whether the kept updates count by their numbers of examples

    def required(self, attackers: int) -> int:
        return max(super().required(attackers), (self.keep or 0) + attackers)

    def require_clients(self, clients: int) -> None:
        attackers = self.expected(clients)
        most = clients - attackers
        if self.keep is None or self.keep <= most:
            super().require_clients(clients)
            return
        replace(self, keep=None).require_clients(clients)
        raise UserError(
            f"aggregator.krum.keep is {self.keep}, but {attackers} of {clients} clients may be "
            f"attackers; set it to at most {most}, or leave it out."
        )

    def combined(self, received: Received, attackers: int) -> Aggregate:
        distances = squared_distances(inner_products(received))
        keep = self.keep or len(received) - attackers
        kept = sorted(ranked(distances, attackers)[:keep])
        received.tell_excluded(kept, "their updates have the highest scores")
        share = [
            weight * (place in kept) for place, weight in enumerate(received.weights(self.weighted))
        ]
        return received.averaged(share, kept)
