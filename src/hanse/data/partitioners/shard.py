"""Rows are sorted by label and cut into shards, and each client gets a few shards.

McMahan et al. 2017 (arXiv:1602.05629), §3: with two shards each, most clients have two labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import PositiveInt

from hanse.data.formats.row import Row
from hanse.data.partitioning import LABEL, Column, Partitioner, cut, groups, proportional
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Shard(Partitioner):
    """Each client gets random shards; no two shards share a row.

    num_shards_per_partition: the number of each client's shards, which all have the same size,
        give or take one row. Without either setting: 2.
    shard_size: rows of a shard. The last shard may be smaller, and some clients may get one shard
        more than others (keep_incomplete_shard=True in flwr-datasets).
    """

    num_shards_per_partition: PositiveInt | None = None
    shard_size: PositiveInt | None = None
    partition_by: Column = LABEL

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        if self.num_shards_per_partition is not None and self.shard_size is not None:
            raise UserError(
                "shard has both num_shards_per_partition and shard_size, but all rows are dealt, "
                "and then one follows from the other; leave one out."
            )
        indices = [index for group in groups(rows, self).values() for index in group]
        shards = cut(indices, self._sizes(len(rows), num_clients))
        generator = np.random.default_rng(context.derive("partition"))
        order = generator.permutation(len(shards))
        return [
            sorted(index for number in numbers for index in shards[number])
            for numbers in cut(order, proportional([1] * num_clients, len(shards)))
        ]

    def _sizes(self, total: int, num_clients: int) -> list[int]:
        """The sizes of the shards, in the order of the rows."""
        if self.shard_size is None:
            count = num_clients * (self.num_shards_per_partition or 2)
            sizes = proportional([1] * count, total)
        else:
            full, remainder = divmod(total, self.shard_size)
            sizes = [self.shard_size] * full + [remainder] * bool(remainder)
            count = len(sizes)
        if count > total or count < num_clients:
            raise UserError(
                f"shard makes {count} shards of {total} rows for {num_clients} clients; ask for at "
                "least one for each client, and at least one row in each."
            )
        return sizes
