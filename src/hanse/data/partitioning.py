"""Deal the training rows to simulated clients.

Partitioners that flwr-datasets 0.6.1 (https://flower.ai/docs/datasets) has, too, share its names
and its names of settings. Unlike it, ours deal every row, or raise an error that says why not.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from hanse.data.formats.row import Row
from hanse.errors import UserError
from hanse.randomness import RoundContext
from hanse.registry import COLUMN

LABEL = "label"
Column = Annotated[str, COLUMN]


class Partitioner(ABC):
    """A rule that deals rows to clients: a frozen dataclass whose fields are its settings.

    encoder: the sentence encoder whose vectors it needs; then every row has its `vector`.
    """

    encoder: str | None = None

    @abstractmethod
    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; every row goes to exactly one client."""

    def goes_by(self) -> str | None:
        """The column by whose values rows are dealt, its setting `partition_by`; None without."""
        column: str | None = getattr(self, "partition_by", None)
        return column


def partition(
    rows: Sequence[Row], num_clients: int, partitioner: Partitioner, context: RoundContext
) -> list[list[Row]]:
    """Deal rows to clients: each client's rows.

    Raises UserError if a client would have no rows, or if a row lacks the partitioner's column.
    """
    if not 1 <= num_clients <= len(rows):
        raise UserError(
            f"{len(rows)} rows cannot be dealt to {num_clients} clients, since each client needs "
            "at least one; change the number of clients, or give more data."
        )
    assigned = partitioner.assign(rows, num_clients, context)
    if empty := sum(not indices for indices in assigned):
        raise UserError(
            f"the partitioner {name(partitioner)} leaves {empty} of {num_clients} clients without "
            f"any of the {len(rows)} rows; ask for fewer clients, or change its settings."
        )
    return [[rows[index] for index in indices] for indices in assigned]


def name(partitioner: Partitioner) -> str:
    """The name of a partitioner in experiments, for error messages."""
    return re.sub(r"\B([A-Z])", r"_\1", type(partitioner).__name__).lower()


def groups(rows: Sequence[Row], partitioner: Partitioner) -> dict[str, list[int]]:
    """The indices of the rows with each value of the partitioner's column, by value.

    Values are `ordered`; raises UserError for a row that has none.
    """
    column = partitioner.goes_by()
    indices: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        value = row.label if column == LABEL else row.fields.get(str(column))
        if value is None:
            raise UserError(_without(row, partitioner))
        indices.setdefault(value, []).append(index)
    return {value: indices[value] for value in ordered(indices)}


def ordered(values: Iterable[str]) -> list[str]:
    """The distinct values, in numeric order if all are numbers, else in the order of text."""
    distinct = sorted(set(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def proportional(weights: Sequence[float] | NDArray[np.float64], total: int) -> list[int]:
    """Divide `total` into whole numbers in proportion to weights (Hamilton's method).

    The largest remainders are rounded up, the first of equal ones first.
    """
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    # 1e-9: a whole number less a rounding error must not be rounded down.
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    short = total - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:short]] += 1
    return [int(size) for size in sizes]


def cut(indices: Sequence[int] | NDArray[Any], sizes: Sequence[int]) -> list[list[int]]:
    """Cut indices into consecutive pieces of these sizes."""
    return [piece.tolist() for piece in np.split(np.asarray(indices), np.cumsum(sizes)[:-1])]


def deal(rows: Sequence[Row], sizes: Sequence[int], context: RoundContext) -> list[list[int]]:
    """Shuffle rows and deal them in shares of these sizes: the sorted indices of each share."""
    generator = np.random.default_rng(context.derive("partition"))
    return [sorted(share) for share in cut(generator.permutation(len(rows)), sizes)]


def _without(row: Row, partitioner: Partitioner) -> str:
    """The error message for a row that lacks the partitioner's column."""
    if partitioner.goes_by() == LABEL:
        return (
            f"{row.place}: the partitioner {name(partitioner)} goes by label, but this row has "
            "none; add a column `label`, name another column in partition_by, or use the "
            "partitioner iid."
        )
    columns = ", ".join(sorted(row.fields)) or "none"
    return (
        f"{row.place}: the partitioner {name(partitioner)} goes by the column "
        f"{partitioner.goes_by()!r}, but the columns beside the text are: {columns}; name one of "
        "them."
    )
