"""Two rules that give an algorithm less than the mean of the package does."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import Aggregate


@dataclass(frozen=True)
class Sums(Aggregator):
    """Sees summands only, and adds them up; numbers are not among what it gives."""

    sums_only: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN})

    def aggregate(self, exchange: Exchange) -> Aggregate:
        total: dict[str, torch.Tensor] = {}
        clients = []
        for profile, summand in exchange.sealed():
            clients.append(profile.name)
            total = {name: total.get(name, 0.0) + t for name, t in summand.items()}
        return exchange.mean(total, clients)


@dataclass(frozen=True)
class Median(Aggregator):
    """Each coordinate's median: no mean, no numbers, and nothing for `combine`."""

    def aggregate(self, exchange: Exchange) -> Aggregate:
        updates = {profile.name: update.tensors for profile, update in exchange.updates()}
        first = next(iter(updates.values()))
        found = {
            name: torch.stack([own[name] for own in updates.values()]).median(dim=0).values
            for name in first
        }
        return Aggregate(found, {}, float(len(updates)), tuple(updates))
