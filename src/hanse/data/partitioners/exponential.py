"""The clients hold e, e², e³, … units of rows, all with the same mixture of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, deal, proportional
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Exponential(Partitioner):
    """Shuffled rows; the i-th client's share is proportional to exp(i)."""

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted."""
        units = np.exp(np.arange(num_clients) - num_clients)  # the largest is 1/e: none overflows
        return deal(rows, proportional(units, len(rows)), context)
