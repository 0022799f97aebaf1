"""Each client is one value of a column: the person, the hospital, the topic that rows belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Column, Partitioner, groups
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class NaturalId(Partitioner):
    """As many clients as the column has values, one each, in order; `key` groups values."""

    partition_by: Column

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for a column missing."""
        found = groups(rows, self)
        if len(found) != num_clients:
            raise UserError(
                f"natural_id makes a client of each value of {self.partition_by!r}, and there are "
                f"{len(found)}, but num_clients is {num_clients}; set num_clients to {len(found)}, "
                "or use the partitioner key, which puts several values together."
            )
        return list(found.values())
