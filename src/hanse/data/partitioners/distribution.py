"""A matrix gives the number of each client's rows of each label.

flwr-datasets' DistributionPartitioner, after Li et al. 2020 (FedProx, arXiv:1812.06127), where
every client has every label; here a 0 in the matrix leaves a label out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeFloat

from hanse.data.formats.row import Row
from hanse.data.partitioning import LABEL, Column, Partitioner, cut, groups, proportional
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Distribution(Partitioner):
    """The rows of a label are dealt in proportion to the label's line in the matrix.

    distribution_array: a line for each label, in order, with a number for each client.
    """

    distribution_array: tuple[tuple[NonNegativeFloat, ...], ...]
    partition_by: Column = LABEL

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        by_label = groups(rows, self)
        self._check(list(by_label), num_clients)
        generator = np.random.default_rng(context.derive("partition"))
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for line, indices in zip(self.distribution_array, by_label.values(), strict=True):
            shares = cut(generator.permutation(indices), proportional(line, len(indices)))
            for client, share in zip(clients, shares, strict=True):
                client.extend(share)
        return [sorted(client) for client in clients]

    def _check(self, values: list[str], num_clients: int) -> None:
        if len(self.distribution_array) != len(values):
            raise UserError(
                f"distribution.distribution_array has {len(self.distribution_array)} lines, but "
                f"{self.partition_by} has {len(values)} values ({', '.join(values):.80}); write a "
                "line for each."
            )
        for value, line in zip(values, self.distribution_array, strict=True):
            if len(line) != num_clients or not any(line):
                raise UserError(
                    f"distribution.distribution_array has {list(line)} for the {self.partition_by} "
                    f"{value!r}; write {num_clients} numbers, one for each client, not all 0."
                )
