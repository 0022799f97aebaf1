"""Paths are the cheapest ones, by the rule for ties, in any company of other texts."""

import random

import numpy as np
import pytest

from hanse.data.tokenization.alignment import sequences
from hanse.data.tokenization.alignment.sequences import align
from recursions import cheapest


def _texts(draw: random.Random, alphabet: str, count: int) -> list[list[str]]:
    tokens = ["".join(draw.choices(alphabet, k=draw.randint(0, 4))) for _ in range(6)]
    return [draw.choices(tokens, k=draw.randint(1, 9)) for _ in range(count)]


@pytest.mark.parametrize("alphabet", ["ab", "abcdefg", "aä中😀\udcc3"])
@pytest.mark.parametrize("cells", [1, 4_000_000])
def test_paths_are_the_cheapest(alphabet: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_CELLS", cells)
    monkeypatch.setattr(sequences, "_TEXTS", 16)
    draw = random.Random(len(alphabet))
    source, target = _texts(draw, alphabet, 50), _texts(draw, alphabet, 50)
    for one, other, path in zip(source, target, align(source, target), strict=True):
        assert [tuple(pair) for pair in path.tolist()] == cheapest(one, other)[1]


def test_several_tokens_are_aligned_with_one() -> None:
    one, other = ["we", " util", "ize", " it"], ["we", " utilize", " it"]
    down, up = align([one, other], [other, one])
    assert down.tolist() == [[0, 0], [1, 1], [2, 1], [3, 2]]
    assert up.tolist() == [[0, 0], [1, 1], [1, 2], [2, 3]]


def test_single_tokens_are_aligned_with_all() -> None:
    down, up = align([["a"], ["b", "c"]], [["x", "a", "y"], ["c"]])
    assert down.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert up.tolist() == [[0, 0], [1, 0]]


def test_equal_tokens_give_the_identity_and_spaces_count_for_nothing() -> None:
    tokens = [["a", "a", " a", "", "ä", "a"] * 5, ["\udcc3", "\udca4"]]
    spaced = [[f" {text}" for text in row] for row in tokens]
    for path, row in zip(align(tokens, spaced), tokens, strict=True):
        np.testing.assert_array_equal(path, np.arange(len(row))[:, None].repeat(2, axis=1))
        assert path.dtype == np.int32


def test_empty_texts_have_no_pairs() -> None:
    assert [path.shape for path in align([[], ["a"], []], [["a"], [], []])] == [(0, 2)] * 3
    assert align([], []) == []


def test_other_texts_do_not_matter() -> None:
    draw = random.Random(3)
    source, target = _texts(draw, "abc", 40), _texts(draw, "abc", 40)
    source.append(["abc"] * 300)
    target.append(["ab", "c"] * 300)
    together = align(source, target)
    for one, other, path in zip(source, target, together, strict=True):
        np.testing.assert_array_equal(align([one], [other])[0], path)
