"""Each client holds all rows of some values of one column, such as authors or languages."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Column, Partitioner, groups
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Key(Partitioner):
    """All rows with one value of `column` go to the same client.

    With as many values as clients, each client gets one, in order, as with `natural_id`. With more
    values, the one with most rows is dealt first, each to the client that holds the fewest rows so
    far (flwr-datasets' GroupedNaturalIdPartitioner counts values instead of rows).
    """

    column: Column

    def goes_by(self) -> str:
        """The column."""
        return self.column

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError if the column is missing."""
        by_value = groups(rows, self)
        if len(by_value) < num_clients:
            raise UserError(
                f"the column {self.column!r} has {len(by_value)} values, too few for {num_clients} "
                f"clients; ask for at most {len(by_value)} clients, or use the partitioner iid or "
                "dirichlet."
            )
        if len(by_value) == num_clients:
            return list(by_value.values())
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for indices in sorted(by_value.values(), key=len, reverse=True):
            min(clients, key=len).extend(indices)
        return [sorted(client) for client in clients]
