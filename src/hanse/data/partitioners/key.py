"""Each client holds whole values of one column: a source, an author, a topic, a language."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Column, Partitioner, groups
from hanse.errors import UserError
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Key(Partitioner):
    """No value of `column` is split between clients.

    As many values as clients: one each, in order, as natural_id has it. More values: the largest
    goes first, to the client that holds the fewest rows so far (flwr-datasets'
    GroupedNaturalIdPartitioner goes by the number of values instead).
    """

    column: Column

    def goes_by(self) -> str:
        """The column."""
        return self.column

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for a column missing."""
        found = groups(rows, self)
        if len(found) < num_clients:
            raise UserError(
                f"the column {self.column!r} has {len(found)} values, too few for {num_clients} "
                f"clients; ask for at most {len(found)}, or use the partitioner iid or dirichlet."
            )
        if len(found) == num_clients:
            return list(found.values())
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for indices in sorted(found.values(), key=len, reverse=True):
            min(clients, key=len).extend(indices)
        return [sorted(client) for client in clients]
