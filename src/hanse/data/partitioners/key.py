"""Each client holds whole values of one column: a source, an author, a topic, a language."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats import Row
from hanse.data.partition import Partitioner
from hanse.errors import UserError
from hanse.randomness import Moment


@dataclass(frozen=True)
class Key(Partitioner):
    """No value of `column` is split between clients.

    As many values as clients: one each, in sorted order. More values: the largest goes first, to
    the client that holds the fewest rows so far.
    """

    column: str

    def assign(self, rows: Sequence[Row], num_clients: int, moment: Moment) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for a column missing."""
        for row in rows:
            if self.column not in row.fields:
                there = ", ".join(sorted(row.fields)) or "none"
                raise UserError(
                    f"{row.place}: the partitioner key goes by the column {self.column!r}, but "
                    f"the columns beside the text are: {there}; name one of them."
                )
        owners = self._owners(Counter(row.fields[self.column] for row in rows), num_clients)
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for index, row in enumerate(rows):
            clients[owners[row.fields[self.column]]].append(index)
        return clients

    def _owners(self, sizes: Counter[str], num_clients: int) -> dict[str, int]:
        """The client of each value."""
        values = sorted(sizes)
        if len(values) < num_clients:
            raise UserError(
                f"the column {self.column!r} has {len(values)} values, too few for {num_clients} "
                f"clients; ask for at most {len(values)}, or use the partitioner iid or dirichlet."
            )
        if len(values) == num_clients:
            return {value: client for client, value in enumerate(values)}
        owners: dict[str, int] = {}
        held = [0] * num_clients
        for value in sorted(values, key=lambda value: -sizes[value]):
            owners[value] = held.index(min(held))
            held[owners[value]] += sizes[value]
        return owners
