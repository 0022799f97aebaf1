"""Deals the training rows to simulated clients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hanse.data.formats import Row
from hanse.errors import UserError
from hanse.randomness import Moment


class Partitioner(ABC):
    """A rule for who holds which row: a frozen dataclass whose fields are its settings."""

    @abstractmethod
    def assign(self, rows: Sequence[Row], num_clients: int, moment: Moment) -> list[list[int]]:
        """The indices of each client's rows, sorted; every row goes to exactly one client."""


def partition(
    rows: Sequence[Row], num_clients: int, partitioner: Partitioner, moment: Moment
) -> list[list[Row]]:
    """Each client's rows.

    Raises UserError if a client would be left without rows, or if the rows lack what the
    partitioner goes by.
    """
    if not 1 <= num_clients <= len(rows):
        raise UserError(
            f"{len(rows)} examples cannot be dealt to {num_clients} clients, of which each needs "
            "at least one; change the number of clients, or give more data."
        )
    assigned = partitioner.assign(rows, num_clients, moment)
    return [[rows[index] for index in indices] for indices in assigned]
