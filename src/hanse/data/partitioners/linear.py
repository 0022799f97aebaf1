"""The clients hold 1, 2, 3, … units of rows, all with the same mixture of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, deal, proportional
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Linear(Partitioner):
    """Shuffled rows; the i-th client's share is proportional to i."""

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted."""
        return deal(rows, proportional(range(1, num_clients + 1), len(rows)), context)
