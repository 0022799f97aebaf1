"""Puts several examples into one row, so that short ones fill the rows of a batch."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from hanse.learners.training.settings import TrainingSettings


def packed_rows(sizes: Sequence[int], room: int) -> list[list[int]]:
    """The examples of each row, at most `room` tokens together, by best fit decreasing.

    Each example goes into the fullest row that has room for it, the longest example first; one that
    is longer than a row has a row by itself (Johnson 1973, Near-optimal bin packing algorithms).

    sizes: tokens of each example.
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (free tokens, row), in order
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        place = bisect_left(spaces, (sizes[index], 0))
        if place < len(spaces):
            free, row = spaces.pop(place)
        else:
            free, row = max(room, sizes[index]), len(rows)
            rows.append([])
        rows[row].append(index)
        insort(spaces, (free - sizes[index], row))
    return rows


def row_count(sizes: Sequence[int], settings: TrainingSettings, room: int) -> int:
    """The number of rows in a pass over examples of these sizes; room: tokens of a packed row."""
    return len(packed_rows(sizes, room)) if settings.packing else len(sizes)
