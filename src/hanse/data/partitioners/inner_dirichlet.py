"""Clients of given sizes differ in their labels, by a Dirichlet draw for every client.

Hsu et al. 2019 (arXiv:1909.06335) and Acar et al. 2021 (FedDyn, arXiv:2111.04263). The partitioner
`dirichlet` draws for every label instead, and its clients differ in size, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hanse.data.formats.row import Row
from hanse.data.partitioners.dirichlet import Alpha
from hanse.data.partitioners.size import Sizes, fitted
from hanse.data.partitioning import LABEL, Column, Partitioner, groups, proportional
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class InnerDirichlet(Partitioner):
    """Each client draws the labels of its rows by its own p ~ Dirichlet(alpha, …, alpha).

    For each row, a client that is not full is drawn at random, and then one of the labels that
    still have rows, by that client's p.

    partition_sizes: as for the partitioner `size`; none: sizes that are as equal as possible.
    """

    alpha: Alpha = 0.5
    partition_sizes: Sizes | None = None
    partition_by: Column = LABEL

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        by_label = list(groups(rows, self).values())
        if self.partition_sizes is None:
            sizes = proportional([1] * num_clients, len(rows))
        else:
            sizes = fitted(self.partition_sizes, num_clients, len(rows), self)
        generator = np.random.default_rng(context.derive("partition"))
        shares = generator.dirichlet(np.full(len(by_label), self.alpha), size=num_clients)
        stock = [generator.permutation(group).tolist() for group in by_label]
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        waiting = [client for client, size in enumerate(sizes) if size]
        while waiting:
            client = waiting[generator.integers(len(waiting))]
            clients[client].append(stock[_label(shares[client], stock, generator)].pop())
            if len(clients[client]) == sizes[client]:
                waiting.remove(client)
        return [sorted(client) for client in clients]


def _label(
    shares: NDArray[np.float64], stock: list[list[int]], generator: np.random.Generator
) -> int:
    """Draw one of the labels that still have rows, by a client's shares of the labels."""
    left = np.array([len(indices) for indices in stock], dtype=np.float64)
    weights = np.where(left > 0, shares, 0.0)
    if not weights.sum():  # with a small alpha its shares of these labels may all be 0
        weights = left
    return int(generator.choice(len(stock), p=weights / weights.sum()))
