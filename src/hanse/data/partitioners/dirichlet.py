"""Clients differ in their labels and sizes, by a Dirichlet draw for every label.

Yurochkin et al. 2019 (arXiv:1905.12022), §4; also FedNLP (arXiv:2104.08815) and flwr-datasets.
Hsu et al. 2019 (arXiv:1909.06335) draw for every client instead, and their clients have equal
sizes: the partitioner `inner_dirichlet`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from hanse.data.formats.row import Row
from hanse.data.partitioning import LABEL, Column, Partitioner, groups, name
from hanse.errors import UserError
from hanse.randomness import RoundContext

TRIES = 1000  # a draw takes microseconds, and two labels over ten clients often need many

# Beyond these limits numpy's draws are wrong: alpha or its inverse nears the ends of float64.
Alpha = Annotated[float, Field(ge=1e-6, le=1e6)]


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Each label's rows are cut among the clients in proportions p ~ Dirichlet(alpha, …, alpha).

    alpha: a large one makes clients similar; with a small one each label is at one client only.
    min_partition_size: fewest rows at a client; proportions are drawn again until all have them.
    self_balancing: a client with more rows than the mean gets none of the labels that are still to
        be dealt, as in the code of this paper and of many later ones.
    """

    alpha: Alpha = 0.5
    partition_by: Column = LABEL
    min_partition_size: PositiveInt = 1
    self_balancing: bool = False

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        by_label = list(groups(rows, self).values())
        generator = np.random.default_rng(context.derive("partition"))
        cuts = self._cuts([len(group) for group in by_label], num_clients, generator)
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for group, ends in zip(by_label, cuts, strict=True):
            for client, part in enumerate(np.split(generator.permutation(group), ends[:-1])):
                clients[client].extend(part.tolist())
        return [sorted(client) for client in clients]

    def _cuts(
        self, sizes: list[int], num_clients: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """(labels, clients): the end of each client's part in the rows of each label."""
        for _ in range(TRIES):
            shares = generator.dirichlet(np.full(num_clients, self.alpha), size=len(sizes))
            ends = _balanced(shares, sizes) if self.self_balancing else _ends(shares, sizes)
            if np.diff(ends, axis=1, prepend=0).sum(axis=0).min() >= self.min_partition_size:
                return ends
        raise UserError(
            f"{name(self)} with alpha {self.alpha} found no way in {TRIES} draws to deal "
            f"{sum(sizes)} rows with {len(sizes)} labels to {num_clients} clients with at least "
            f"{self.min_partition_size} each; raise alpha, lower min_partition_size, or ask for "
            "fewer clients."
        )


def _ends(shares: NDArray[np.float64], sizes: list[int]) -> NDArray[np.int64]:
    """(labels, clients): the end of each part, for shares (labels, clients) of these sizes."""
    ends: NDArray[np.int64] = np.rint(np.cumsum(shares, axis=1) * np.array(sizes)[:, None]).astype(
        np.int64
    )
    return ends


def _balanced(shares: NDArray[np.float64], sizes: list[int]) -> NDArray[np.int64]:
    """The same, but clients that hold more than the mean already get no share of a label."""
    held = np.zeros(shares.shape[1], dtype=np.int64)
    parts = []
    for share, size in zip(shares, sizes, strict=True):
        weights = np.where(held > sum(sizes) / len(held), 0.0, share)
        if not weights.sum():  # all of them were too small for float64: equal shares
            weights = (held <= sum(sizes) / len(held)).astype(np.float64)
        [ends] = _ends((weights / weights.sum())[None], [size])
        held += np.diff(ends, prepend=0)
        parts.append(ends)
    return np.stack(parts)
