"""Two tokenizations of the same texts, aligned by dynamic programming over edit distances.

The alignment of FedMKT (2406.02224) and FuseLLM (2401.10491), in whose code it is called dynamic
time warping: a path of pairs of places from the first tokens to the last ones, on which each step
advances one side or both, with the least sum of the edit distances of its pairs. Spaces count for
nothing, as in the reference code. Many texts are aligned at once, each diagonal of their tables in
a few operations.

Tokens that together make up one token of the other side cost nothing beside it, other than in the
reference code, which takes "ize" to be nearer to a following "it" than to its own "utilize".
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hanse.data.tokenization.alignment.edit_distance import EditDistance

Path = NDArray[np.int32]  # (pairs, 2): places in the source's and in the target's tokens
Tokens = Sequence[Sequence[str]]  # the texts of the tokens of each text

_BOTH, _SOURCE, _TARGET = 0, 1, 2  # the sides that a step advances
_STEPS = np.array([[1, 1], [1, 0], [0, 1]], np.int32)
_TEXTS = 128  # texts whose tokens are compared at once
_CELLS = 4_000_000  # of the tables that are filled at once
_ENDLESS = np.iinfo(np.int32).max // 2


def align(source: Tokens, target: Tokens) -> list[Path]:
    """The path of each text, from the texts of its tokens on both sides.

    Of paths with equal sums it is the one that, from the end, advances both sides rather than the
    source alone, and the source alone rather than the target alone, as in the reference code: so
    equal tokens give the identity. A text without tokens on one side has no pairs.
    """
    paths = [np.empty((0, 2), np.int32)] * len(source)
    filled = [n for n, sides in enumerate(zip(source, target, strict=True)) if all(sides)]
    filled.sort(key=lambda n: len(source[n]) + len(target[n]))  # like lengths waste no cells
    for start in range(0, len(filled), _TEXTS):
        block = filled[start : start + _TEXTS]
        rows = _Numbered([source[n] for n in block])
        columns = _Numbered([target[n] for n in block])
        distances = EditDistance(list(columns.texts)).table(list(rows.texts))
        for part in _parts(rows.lengths, columns.lengths):
            numbers = rows.of(part)[:, :, None], columns.of(part)[:, None, :]
            costs = distances[numbers]
            for cost, one, other in zip(
                costs, rows.tokens[part], columns.tokens[part], strict=True
            ):
                _join(cost, one, other)
                _join(cost.T, other, one)
            moves = _moves(costs)
            lengths = np.stack([rows.lengths[part], columns.lengths[part]], axis=1)
            for n, path in zip(block[part], _paths(moves, lengths), strict=True):
                paths[n] = path
    return paths


class _Numbered:
    """The tokens of some texts, each as the number of its text without spaces."""

    def __init__(self, tokens: Tokens) -> None:
        self.texts: dict[str, int] = {}  # text -> its number
        self.lengths = np.array([len(row) for row in tokens], np.int32)
        self._numbers = np.zeros((len(tokens), int(self.lengths.max())), np.intp)
        self.tokens = [[text.replace(" ", "") for text in row] for row in tokens]
        for row, own in zip(self._numbers, self.tokens, strict=True):
            row[: len(own)] = [self.texts.setdefault(text, len(self.texts)) for text in own]

    def of(self, part: slice) -> NDArray[np.intp]:
        """The numbers of the tokens of some texts: (texts, most tokens), filled up with any."""
        return self._numbers[part, : self.lengths[part].max()]


def _parts(rows: NDArray[np.int32], columns: NDArray[np.int32]) -> Iterator[slice]:
    """Slices of texts whose tables together have at most _CELLS cells, or are one table."""
    start = 0
    for end in range(1, len(rows) + 1):
        own = slice(start, end + 1)
        cells = (end + 1 - start) * int(rows[own].max()) * int(columns[own].max())
        if end == len(rows) or cells > _CELLS:
            yield slice(start, end)
            start = end


def _join(costs: NDArray[np.uint16], rows: list[str], columns: list[str]) -> None:
    """Set to 0 the costs (rows, columns) of neighbours whose joined text is that of a column."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(columns):
        places.setdefault(text, []).append(place)
    longest = max(map(len, places))
    for first, text in enumerate(rows):
        for last in range(first + 1, len(rows)):
            text += rows[last]
            if len(text) > longest:
                break
            if text in places:
                costs[first : last + 1, places[text]] = 0


def _moves(costs: NDArray[np.uint16]) -> NDArray[np.int8]:
    """The last step of the cheapest path to each pair: (texts, rows, columns), as the costs.

    Cells beyond a text's tokens are filled, too; no path to a cell within them leads there.
    """
    texts, rows, columns = costs.shape
    flat, moves = costs.reshape(texts, -1), np.zeros((texts, rows * columns), np.int8)
    # Sums on the diagonal before the last, on the last and on this one; row i is at i + 1.
    older, last, now = (np.full((texts, rows + 1), _ENDLESS, np.int32) for _ in range(3))
    older[:, 0] = 0
    for diagonal in range(rows + columns - 1):
        low, high = max(0, diagonal - columns + 1), min(rows, diagonal + 1)
        first, step = diagonal + low * (columns - 1), max(columns - 1, 1)
        cells = slice(first, first + (high - low - 1) * step + 1, step)
        both, upper, left = older[:, low:high], last[:, low:high], last[:, low + 1 : high + 1]
        least = np.minimum(np.minimum(both, upper), left)
        alone = np.where(upper == least, _SOURCE, _TARGET)
        moves[:, cells] = np.where(both == least, _BOTH, alone)
        np.add(least, flat[:, cells], out=now[:, low + 1 : high + 1])
        older[:, 0] = _ENDLESS
        older, last, now = last, now, older
    return moves.reshape(costs.shape)


def _paths(moves: NDArray[np.int8], lengths: NDArray[np.int32]) -> list[Path]:
    """The path of each text, followed from its end; lengths: (texts, 2), its tokens."""
    texts, places = np.arange(len(moves)), lengths - 1
    trail = []
    while (places >= 0).any():
        trail.append(places)
        rows, columns = np.maximum(places, 0).T
        places = np.where(places < 0, places, places - _STEPS[moves[texts, rows, columns]])
    steps = np.stack(trail[::-1])
    return [steps[steps[:, text, 0] >= 0, text] for text in texts]
