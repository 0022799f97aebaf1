"""Norm bounding (Sun et al. 2019, 1911.07963)."""

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from pydantic import PositiveFloat

from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import RobustRule


@dataclass(frozen=True)
class NormBounding(RobustRule):
    """The mean of updates, each of which is shortened to a norm of at most M.

    Sun et al. 2019 (1911.07963), § 4: Δₖ / max(1, ‖Δₖ‖/M). It bounds what one client can do in one
    round, such as replacing the model, and does not find the direction that most clients take:
    attackers who stay within M move the mean by their share. The median of the norms as M is ours.

    Each client counts the same, unless `weighted` is set, since its number of examples is its own
    word. The norm is that of the update as it travels.
    """

    payloads: ClassVar[tuple[str, ...]] = ("change",)

    norm: PositiveFloat | None = None  # M; None: the median of the round's norms
    weighted: bool = False  # whether clients count by their numbers of examples

    def bound(self, clients: int) -> str:
        bound = "the median norm" if self.norm is None else f"the norm {self.norm:g}"
        return f"a hostile client moves the mean by at most 1/{clients} of {bound}"

    def combined(self, received: Received, attackers: int) -> Aggregate:
        norms = inner_products(received).diagonal().sqrt().tolist()
        most = median(norms) if self.norm is None else self.norm
        weights = received.weights(self.weighted)
        bounded = [1.0 if norm <= most else most / norm for norm in norms]
        share = [weight * by / sum(weights) for weight, by in zip(weights, bounded, strict=True)]
        return received.aggregate(received.combination(share), range(len(received)))
