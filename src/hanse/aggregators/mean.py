"""The weighted mean: one update at a time, so that memory does not grow with the clients."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from hanse.interfaces import Aggregator, Exchange
from hanse.messages import ClientProfile, Update
from hanse.tensors import RunningMean
from hanse.values import Combined


@dataclass(frozen=True)
class Mean(Aggregator):
    """Σ wₖ·Δₖ / Σ wₖ over the clients that answered (McMahan et al. 2017, 1602.05629, alg. 1)."""

    def aggregate(self, exchange: Exchange) -> Combined:
        if exchange.algorithm.combines:
            return exchange.algorithm.combine(list(_decoded(exchange)))
        mean, clients = RunningMean(), []
        sums: defaultdict[str, float] = defaultdict(float)
        weights: defaultdict[str, float] = defaultdict(float)  # not all report every number
        for profile, update in _decoded(exchange):
            if update.weight > 0:  # a client without examples has nothing to say
                mean.add(update.tensors, update.weight)
                for name, value in update.numbers.items():
                    sums[name] += update.weight * value
                    weights[name] += update.weight
                clients.append(profile.name)
            del update  # or it would stay in memory while the next client trains
        if not clients:
            return Combined({}, {}, 0.0, ())
        numbers = {name: total / weights[name] for name, total in sums.items()}
        return Combined(mean.value(), numbers, mean.weight, tuple(clients))


def _decoded(exchange: Exchange) -> Iterator[tuple[ClientProfile, Update]]:
    """The round's updates with the transforms undone."""
    for profile, update in exchange.train():
        tensors = exchange.decode(profile.name, update.tensors)
        yield profile, Update(tensors, update.numbers, update.weight)
        del update, tensors  # as above
