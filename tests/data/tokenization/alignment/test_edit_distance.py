"""Edit distances of one string to many equal those of the recursion, for every width of word."""

import random

import numpy as np
import pytest

from hanse.data.tokenization.alignment.edit_distance import EditDistance, padded_codes
from recursions import levenshtein

LENGTHS = (0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 80)


@pytest.mark.parametrize("alphabet", ["ab", "abcdefgh ", "aä中😀\udcc3"])
def test_distances_are_those_of_the_definition(alphabet: str) -> None:
    draw = random.Random(len(alphabet))
    texts = ["".join(draw.choices(alphabet, k=length)) for length in LENGTHS * 2]
    draw.shuffle(texts)
    expected = [[levenshtein(one, other) for other in texts] for one in texts]
    np.testing.assert_array_equal(EditDistance(texts).table(texts), expected)


def test_without_strings_there_are_no_distances() -> None:
    assert EditDistance([]).to("util").shape == (0,)
    assert EditDistance(["util"]).table([]).shape == (0, 1)


def test_codes_are_filled_up_with_no_character() -> None:
    assert padded_codes(["", "ab"]).tolist() == [[-1, -1], [97, 98]]
