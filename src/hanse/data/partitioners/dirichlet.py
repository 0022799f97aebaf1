"""Clients differ in how often they see each label, by a Dirichlet draw for every label.

Yurochkin et al. 2019 (arXiv:1905.12022), §4; also FedNLP (arXiv:2104.08815) and Flower. Unlike
Hsu et al. 2019 (arXiv:1909.06335), who draw the labels of each client, the clients' sizes differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from hanse.data.formats import Row
from hanse.data.partition import Partitioner
from hanse.errors import UserError
from hanse.randomness import Moment

TRIES = 1000  # a draw takes microseconds, and two labels over ten clients often need many


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Each label's rows are cut among the clients in proportions p ~ Dirichlet(alpha, …, alpha).

    alpha: large: all clients alike; small: each label at one client only.
    min_size: fewest rows at a client; all proportions are drawn anew until it holds.
    """

    # numpy's draws lose their meaning where alpha or its inverse come near the ends of float64.
    alpha: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.5
    min_size: PositiveInt = 1

    def assign(self, rows: Sequence[Row], num_clients: int, moment: Moment) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        by_label: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            if row.label is None:
                raise UserError(
                    f"{row.place}: the partitioner dirichlet goes by label, but this row has "
                    "none; add a column `label`, or use the partitioner iid or key."
                )
            by_label.setdefault(row.label, []).append(index)
        groups = [by_label[label] for label in sorted(by_label)]
        generator = np.random.default_rng(moment.derive("partition"))
        cuts = self._cuts([len(group) for group in groups], num_clients, generator)
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for group, ends in zip(groups, cuts, strict=True):
            for client, part in enumerate(np.split(generator.permutation(group), ends[:-1])):
                clients[client].extend(part.tolist())
        return [sorted(client) for client in clients]

    def _cuts(
        self, sizes: list[int], num_clients: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Where each label's rows are cut: (labels, clients), the end of each client's part."""
        counts = np.array(sizes)[:, None]  # (labels, 1)
        for _ in range(TRIES):
            shares = generator.dirichlet(np.full(num_clients, self.alpha), size=len(sizes))
            exact = np.cumsum(shares, axis=1) * counts
            ends: NDArray[np.int64] = np.rint(exact).astype(np.int64)
            if np.diff(ends, axis=1, prepend=0).sum(axis=0).min() >= self.min_size:
                return ends
        raise UserError(
            f"dirichlet with alpha {self.alpha} found no way in {TRIES} draws to deal {sum(sizes)} "
            f"rows with {len(sizes)} labels to {num_clients} clients with at least "
            f"{self.min_size} each; raise alpha, lower min_size, or ask for fewer clients."
        )
