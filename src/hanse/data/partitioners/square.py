"""The clients hold 1, 4, 9, … units of rows, all with the same mixture of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, deal, proportional
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Square(Partitioner):
    """Shuffled rows; the i-th client's share is proportional to i²."""

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted."""
        units = [number**2 for number in range(1, num_clients + 1)]
        return deal(rows, proportional(units, len(rows)), context)
