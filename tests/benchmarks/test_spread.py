"""Intervals of the comparisons against the textbook, over reviews and over seeds."""

import math
import statistics

import pytest
from spread import ahead, packed, standing, unpacked

FIRST = [[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
SECOND = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
TAN = math.tan(0.475 * math.pi)  # the 97.5 % quantile of Student's t with one degree of freedom


def test_both_intervals_have_the_same_middle_and_their_own_width() -> None:
    found = ahead(FIRST, SECOND)
    items = [0.0, 0.0, 0.0, 1.0]  # differences of the reviews' means over the two seeds
    quantile = 3.182446305284263  # the 97.5 % quantile of Student's t with three degrees
    half = quantile * statistics.stdev(items) / 2
    assert found["by_item"] == pytest.approx([0.25, 0.25 - half, 0.25 + half], abs=1e-6)
    half = TAN * statistics.stdev([0.5, 0.0]) / math.sqrt(2)
    assert found["by_seed"] == pytest.approx([0.25, 0.25 - half, 0.25 + half])


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert ahead(FIRST[:1], SECOND[:1])["by_seed"] is None
    assert standing(FIRST[:1])["over_seeds"] is None


def test_scores_are_kept_digit_by_digit() -> None:
    assert packed(FIRST[0]) == "1101"
    assert unpacked(packed(FIRST[0])) == FIRST[0]
    with pytest.raises(ValueError, match="right or wrong"):
        packed([0.5])
