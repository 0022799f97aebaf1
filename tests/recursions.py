"""Edit distances and alignments by their definitions, for short inputs only."""

from collections.abc import Sequence
from functools import cache


def levenshtein(one: str, other: str) -> int:
    """The definition: the first letters are equal, or one is replaced, inserted or deleted."""

    @cache
    def rest(at: int, place: int) -> int:
        if at == len(one) or place == len(other):
            return max(len(one) - at, len(other) - place)
        if one[at] == other[place]:
            return rest(at + 1, place + 1)
        return 1 + min(rest(at + 1, place + 1), rest(at + 1, place), rest(at, place + 1))

    return rest(0, 0)


def cheapest(source: Sequence[str], target: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
    """The least sum of edit distances on a path from the first tokens to the last ones, and it.

    Tokens whose joined text is a token of the other side cost nothing beside it. Of equal paths it
    is that which, from the end, advances both sides, else the source alone.
    """

    @cache
    def to(row: int, column: int) -> tuple[int, list[tuple[int, int]]]:
        joined = _part_of(source, row, target[column]) or _part_of(target, column, source[row])
        own = 0 if joined else levenshtein(source[row], target[column])
        before = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        ways = [to(*pair) for pair in before if min(pair) >= 0]
        least, path = min(ways, key=lambda way: way[0], default=(0, []))
        return least + own, [*path, (row, column)]

    return to(len(source) - 1, len(target) - 1)


def _part_of(tokens: Sequence[str], place: int, text: str) -> bool:
    return any(
        "".join(tokens[first:end]) == text
        for first in range(place + 1)
        for end in range(place + 1, len(tokens) + 1)
    )
