"""Each client holds the rows of one value of a column, such as a person, hospital or topic."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Column, Partitioner, groups
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class NaturalId(Partitioner):
    """One client for each value of the column, in order; the partitioner `key` groups values."""

    partition_by: Column

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError if the column is missing."""
        by_value = groups(rows, self)
        if (count := len(by_value)) != num_clients:
            raise UserError(
                f"natural_id makes a client of each value of {self.partition_by!r}, and there are "
                f"{count}, but num_clients is {num_clients}; set num_clients to {count}, or use "
                "the partitioner key, which puts several values together."
            )
        return list(by_value.values())
