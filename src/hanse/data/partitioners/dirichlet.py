"""Clients differ in how often they see each label, by a Dirichlet draw for every label.

Yurochkin et al. 2019 (arXiv:1905.12022), §4; also FedNLP (arXiv:2104.08815) and flwr-datasets.
Unlike Hsu et al. 2019 (arXiv:1909.06335), who draw the labels of each client, the clients' sizes
differ.
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

# numpy's draws lose their meaning where alpha or its inverse come near the ends of float64.
Alpha = Annotated[float, Field(ge=1e-6, le=1e6)]


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Each label's rows are cut among the clients in proportions p ~ Dirichlet(alpha, …, alpha).

    alpha: large: all clients alike; small: each label at one client only.
    min_partition_size: fewest rows at a client; all proportions are drawn anew until it holds.
    self_balancing: who has more rows than the mean gets none of the labels that are still to be
        dealt, as in the code of the paper and of many after it.
    """

    alpha: Alpha = 0.5
    partition_by: Column = LABEL
    min_partition_size: PositiveInt = 1
    self_balancing: bool = False

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        found = list(groups(rows, self).values())
        generator = np.random.default_rng(context.derive("partition"))
        cuts = self._cuts([len(group) for group in found], num_clients, generator)
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for group, ends in zip(found, cuts, strict=True):
            for client, part in enumerate(np.split(generator.permutation(group), ends[:-1])):
                clients[client].extend(part.tolist())
        return [sorted(client) for client in clients]

    def _cuts(
        self, sizes: list[int], num_clients: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Where each label's rows are cut: (labels, clients), the end of each client's part."""
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
    """The ends of the parts that shares (labels, clients) are of labels of these sizes."""
    ends: NDArray[np.int64] = np.rint(np.cumsum(shares, axis=1) * np.array(sizes)[:, None]).astype(
        np.int64
    )
    return ends


def _balanced(shares: NDArray[np.float64], sizes: list[int]) -> NDArray[np.int64]:
    """The same, label by label, without those who hold more than the mean already."""
    held = np.zeros(shares.shape[1], dtype=np.int64)
    found = []
    for share, size in zip(shares, sizes, strict=True):
        rest = np.where(held > sum(sizes) / len(held), 0.0, share)
        if not rest.sum():  # their shares were too small for float64: all alike
            rest = (held <= sum(sizes) / len(held)).astype(np.float64)
        [ends] = _ends((rest / rest.sum())[None], [size])
        held += np.diff(ends, prepend=0)
        found.append(ends)
    return np.stack(found)
