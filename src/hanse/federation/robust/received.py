"""The updates of one round, all of them, for rules that compare them before they combine any."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Self

import torch
from torch import Tensor

from hanse.federation.exchange.spool import Spool, on_disk
from hanse.federation.interfaces.aggregator import Exchange
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Update
from hanse.tensors.named import RunningMean, Tensors, blocks, scale

log = logging.getLogger(__name__)

Combine = Callable[[Tensor], Tensor]  # (n, m) float64, a row for each client → (m,)


@dataclass(frozen=True)
class Received:
    """The updates of a round in client order. Their tensors stay on disk until they are read.

    A rule reads tensor by tensor, so that it has one tensor of each client in memory at a time.
    """

    round: int
    algorithm: Algorithm
    profiles: tuple[ClientProfile, ...]
    updates: tuple[Update, ...]

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        """Ask the clients of a round, and keep all their updates."""
        profiles, updates, spool = [], [], Spool()
        for profile, update in exchange.updates():
            profiles.append(profile)
            updates.append(on_disk(update, spool))
            del update  # or it would stay in memory while the next client trains
        return cls(exchange.round, exchange.algorithm, tuple(profiles), tuple(updates))

    def __len__(self) -> int:
        return len(self.updates)

    @property
    def names(self) -> list[str]:
        """The names of the clients."""
        return [profile.name for profile in self.profiles]

    def coordinates(self, combine: Combine, clients: Sequence[int]) -> dict[str, Tensor]:
        """One value for each coordinate, from those of the clients at these places.

        combine: gets (n, m) values in float64, a row for each client; returns (m,).
        """
        return {name: self._combined(name, combine, clients) for name in self.updates[0].tensors}

    def _combined(self, name: str, combine: Combine, clients: Sequence[int]) -> Tensor:
        tensors = [self.updates[client].tensors[name] for client in clients]
        result = torch.empty(tensors[0].shape, dtype=tensors[0].dtype)
        columns = zip(*map(blocks, tensors), strict=True)
        for target, column in zip(blocks(result), columns, strict=True):
            target.copy_(combine(torch.stack(column).double()))
        return result

    def combination(self, coefficients: Sequence[float]) -> Tensors:
        """The sum of all updates, each times its coefficient, which is at least 0."""
        total = sum(coefficients)
        return scale(self.mean(coefficients), total)

    def mean(self, weights: Sequence[float]) -> Tensors:
        """The mean of the updates by these weights, of which at least one is positive."""
        mean = RunningMean()
        for update, weight in zip(self.updates, weights, strict=True):
            if weight > 0:
                mean.add(update.tensors, weight)
        return mean.value()

    def averaged(self, weights: Sequence[float], clients: Sequence[int]) -> Aggregate:
        """The result if these clients' updates count by these weights, which are those of all.

        An algorithm that combines updates by itself gets these clients' with the weights.
        """
        if not self.algorithm.combines:
            return self.aggregate(self.mean(weights), clients)
        updates = [
            (self.profiles[place], replace(self.updates[place], weight=weights[place]))
            for place in clients
        ]
        combined = self.algorithm.combine(updates)
        own = self.aggregate(combined.tensors, clients)
        return replace(own, numbers={**own.numbers, **combined.numbers})

    def weights(self, weighted: bool) -> list[float]:
        """The clients' weights: their numbers of examples, or 1 for each."""
        return [update.weight if weighted else 1.0 for update in self.updates]

    def tell_excluded(self, kept: Collection[int], reason: str) -> None:
        """Log the clients that are left out. reason: a clause on their updates."""
        names = [name for place, name in enumerate(self.names) if place not in kept]
        if names:
            log.info("round %d: %s left out: %s", self.round, ", ".join(names), reason)

    def aggregate(self, tensors: Tensors, clients: Sequence[int]) -> Aggregate:
        """The round's result with the medians of the numbers that these clients have reported."""
        used = set(clients)
        updates = [update for index, update in enumerate(self.updates) if index in used]
        return Aggregate(
            tensors,
            _medians(updates),
            sum(update.weight for update in updates),
            tuple(name for index, name in enumerate(self.names) if index in used),
            tuple(name for index, name in enumerate(self.names) if index not in used),
        )


def _medians(updates: Sequence[Update]) -> dict[str, float]:
    """The median of each number over the clients that report it."""
    names = dict.fromkeys(name for update in updates for name in update.numbers)
    return {
        name: median(update.numbers[name] for update in updates if name in update.numbers)
        for name in names
    }
