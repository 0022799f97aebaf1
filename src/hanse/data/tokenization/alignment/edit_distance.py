"""Edit distances of one string to many at once: insertions, deletions and replacements.

The columns of the table of dynamic programming are kept as bits, one machine word for each string
(Myers 1999, doi:10.1145/316542.316550, in the form of Hyyrö 2003), so that one numpy operation
advances thousands of strings by one character. Strings above 64 characters, of which a vocabulary
has few, go through the table itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Distances = NDArray[np.uint16]

_WORDS = (np.uint16, np.uint64)  # the smaller the word, the more of them at once
_PADDING = -1  # no character has this code


def codes(text: str) -> NDArray[np.int32]:
    """The code points of a string; (characters,)."""
    return np.array([ord(letter) for letter in text], np.int32)


def padded_codes(texts: Sequence[str]) -> NDArray[np.int32]:
    """The code points of strings; (strings, longest), filled up with -1."""
    table = np.full((len(texts), max(map(len, texts), default=0)), _PADDING, np.int32)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = codes(text)
    return table


class EditDistance:
    """The edit distance of any string to each of these strings."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        lengths = np.array([len(text) for text in texts], np.int64)
        self._groups: list[tuple[NDArray[np.intp], _Words | _Table]] = []
        shortest = 0
        for word in (*_WORDS, None):
            longest = np.iinfo(word).bits if word else int(lengths.max(initial=0))
            at = np.flatnonzero((lengths >= shortest) & (lengths <= longest))
            chosen = [texts[index] for index in at.tolist()]
            if chosen:
                self._groups.append((at, _Words(chosen, word) if word else _Table(chosen)))
            shortest = longest + 1

    def to(self, text: str) -> Distances:
        """The distances of one string: (strings,). No string may have over 65,535 characters."""
        result = np.empty(self._count, np.uint16)
        for at, group in self._groups:
            result[at] = group.to(text)
        return result

    def table(self, texts: Sequence[str]) -> Distances:
        """The distances of several strings: (len(texts), strings)."""
        result = np.empty((len(texts), self._count), np.uint16)
        for row, text in zip(result, texts, strict=True):
            row[:] = self.to(text)
        return result


class _Words:
    """Strings that each fit into a machine word; bit j of a word belongs to character j."""

    def __init__(self, texts: Sequence[str], word: type[np.unsignedinteger[Any]]) -> None:
        self._places: dict[str, NDArray[Any]] = {}  # letter -> the bits of its places
        for index, text in enumerate(texts):
            for place, letter in enumerate(text):
                if letter not in self._places:
                    self._places[letter] = np.zeros(len(texts), word)
                self._places[letter][index] |= word(1 << place)
        self._nowhere = np.zeros(len(texts), word)
        self._used = np.array([(1 << len(text)) - 1 for text in texts], word)
        self._one = word(1)

    def to(self, text: str) -> Distances:
        """The distances of one string; bits of `up` are places where the column rises by one."""
        up, down = np.full_like(self._nowhere, ~self._nowhere[0]), np.zeros_like(self._nowhere)
        same, right, left = (np.empty_like(up) for _ in range(3))
        for letter in text:
            # same: D0 of Hyyrö, a step along the diagonal that costs nothing
            np.bitwise_or(self._places.get(letter, self._nowhere), down, out=right)
            np.bitwise_and(right, up, out=same)
            np.add(same, up, out=same)
            np.bitwise_xor(same, up, out=same)
            np.bitwise_or(same, right, out=same)
            np.bitwise_and(up, same, out=left)
            np.bitwise_or(same, up, out=right)
            np.invert(right, out=right)
            np.bitwise_or(right, down, out=right)
            np.left_shift(right, self._one, out=right)
            np.bitwise_or(right, self._one, out=right)  # the first row rises, too
            np.left_shift(left, self._one, out=left)
            np.bitwise_and(right, same, out=down)
            np.bitwise_or(same, right, out=up)
            np.invert(up, out=up)
            np.bitwise_or(up, left, out=up)
        rises = np.bitwise_count(up & self._used).astype(np.int64)
        falls = np.bitwise_count(down & self._used).astype(np.int64)
        return (len(text) + rises - falls).astype(np.uint16)


class _Table:
    """Strings of any length: one row of the table for each character of the other string."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._codes = padded_codes(texts)
        self._lengths = np.array([len(text) for text in texts])

    def to(self, text: str) -> Distances:
        """The distances of one string."""
        across = np.arange(self._codes.shape[1] + 1)
        row = np.repeat(across[None], len(self._codes), axis=0)
        for place, code in enumerate(codes(text)):
            step = np.full_like(row, place + 1)
            replaced = row[:, :-1] + (self._codes != code)
            np.minimum(row[:, 1:] + 1, replaced, out=step[:, 1:])
            # An insertion costs one for each column that it crosses.
            row = np.minimum.accumulate(step - across, axis=1) + across
        distances: Distances = row[np.arange(len(row)), self._lengths].astype(np.uint16)
        return distances
