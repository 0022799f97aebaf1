"""The clients hold the numbers of rows that are set, all with the same mixture of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, deal, name, proportional
from hanse.errors import UserError
from hanse.randomness import RoundContext

Sizes = tuple[Annotated[int | float, Field(gt=0)], ...]


@dataclass(frozen=True)
class Size(Partitioner):
    """Shuffled rows are cut into parts of these sizes, one for each client.

    partition_sizes: numbers of rows that add up to all rows, or shares that add up to 1.
    """

    partition_sizes: Sizes

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError if the sizes do not fit."""
        return deal(rows, fitted(self.partition_sizes, num_clients, len(rows), self), context)


def fitted(sizes: Sizes, num_clients: int, total: int, partitioner: Partitioner) -> list[int]:
    """The sizes as numbers of rows; raises UserError unless they fit the clients and the rows."""
    if len(sizes) != num_clients:
        raise UserError(
            f"{name(partitioner)}.partition_sizes has {len(sizes)} numbers for {num_clients} "
            "clients; write one for each."
        )
    if all(isinstance(size, int) for size in sizes):
        if sum(sizes) != total:
            raise UserError(
                f"{name(partitioner)}.partition_sizes add up to {sum(sizes)}, but there are "
                f"{total} rows to deal; correct them, or write shares that add up to 1."
            )
        return [int(size) for size in sizes]
    if abs(sum(sizes) - 1) > 1e-6:
        raise UserError(
            f"{name(partitioner)}.partition_sizes add up to {sum(sizes):g}; shares add up to 1."
        )
    return proportional(sizes, total)
