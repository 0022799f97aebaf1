"""The weighted mean. It holds one update at a time, so memory does not grow with the clients."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import ClassVar

from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.declarations import EVERYTHING
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Update
from hanse.tensors.named import RunningMean


@dataclass(frozen=True)
class Mean(Aggregator):
    """Σ wₖ·Δₖ / Σ wₖ over the clients that answered (McMahan et al. 2017, 1602.05629, alg. 1)."""

    gives: ClassVar[frozenset[str]] = EVERYTHING

    def aggregate(self, exchange: Exchange) -> Aggregate:
        if exchange.algorithm.combines:
            return self._combined(exchange)
        mean, numbers, clients = RunningMean(), _Numbers(), []
        for profile, update in exchange.updates():
            mean.add(update.tensors, update.weight)
            numbers.add(update)
            clients.append(profile.name)
            del update  # or it would stay in memory while the next client trains
        if not clients:
            return Aggregate({}, {}, 0.0, ())
        return Aggregate(mean.value(), numbers.value(), mean.weight, tuple(clients))

    def _combined(self, exchange: Exchange) -> Aggregate:
        """The aggregate of an algorithm's own `combine`; all updates are in memory at once."""
        updates = list(exchange.updates())
        if not updates:
            return Aggregate({}, {}, 0.0, ())
        numbers = _Numbers()
        for _, update in updates:
            numbers.add(update)
        aggregate = exchange.algorithm.combine(updates)
        return replace(aggregate, numbers={**numbers.value(), **aggregate.numbers})


class _Numbers:
    """Weighted means of the numbers that clients report; not all report every number."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._weights: defaultdict[str, float] = defaultdict(float)

    def add(self, update: Update) -> None:
        for name, value in update.numbers.items():
            self._sums[name] += update.weight * value
            self._weights[name] += update.weight

    def value(self) -> dict[str, float]:
        return {name: total / self._weights[name] for name, total in self._sums.items()}
