"""Clients of given sizes differ in their labels, by a Dirichlet draw for every client.

Hsu et al. 2019 (arXiv:1909.06335) and Acar et al. 2021 (FedDyn, arXiv:2111.04263); the partitioner
`dirichlet` draws the clients of each label instead, so that their sizes differ, too.
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
    """Each client draws its rows' labels by its own p ~ Dirichlet(alpha, …, alpha).

    Row by row: a client that is not yet full, at random; then a label by that client's p, among
    those of which rows are left.

    partition_sizes: as for `size`; none: as equal as can be.
    """

    alpha: Alpha = 0.5
    partition_sizes: Sizes | None = None
    partition_by: Column = LABEL

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        found = list(groups(rows, self).values())
        if self.partition_sizes is None:
            sizes = proportional([1] * num_clients, len(rows))
        else:
            sizes = fitted(self.partition_sizes, num_clients, len(rows), self)
        generator = np.random.default_rng(context.derive("partition"))
        shares = generator.dirichlet(np.full(len(found), self.alpha), size=num_clients)
        stock = [generator.permutation(group).tolist() for group in found]
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
    """A label by a client's shares of those of which rows are left."""
    left = np.array([len(indices) for indices in stock], dtype=np.float64)
    chances = np.where(left > 0, shares, 0.0)
    if not chances.sum():  # a small alpha gives it none of the labels that are left
        chances = left
    return int(generator.choice(len(stock), p=chances / chances.sum()))
