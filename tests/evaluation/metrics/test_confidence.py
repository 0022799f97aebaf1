"""Intervals over few seeds, against closed forms of Student's t."""

import math
import statistics

import pytest

from hanse.evaluation.metrics.confidence import Interval, standard_error, student


def test_two_and_three_seeds_have_the_wide_intervals_that_student_found() -> None:
    # The 97.5 % quantile is tan(0.475 π) with one degree of freedom, and with two
    # (2p − 1)·√(2 / (1 − (2p − 1)²)).
    two, three = student([1.0, 3.0]), student([1.0, 2.0, 6.0])
    assert two is not None and three is not None
    assert two.value == 2.0
    assert two.high - two.value == pytest.approx(math.tan(0.475 * math.pi))  # standard error 1
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    half = quantile * statistics.stdev([1.0, 2.0, 6.0]) / math.sqrt(3)
    assert (three.low, three.high) == pytest.approx((3.0 - half, 3.0 + half))


def test_one_seed_has_no_interval_and_equal_ones_have_no_width() -> None:
    assert student([0.7]) is None
    assert student([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5)


def test_the_standard_error_of_right_and_wrong_answers() -> None:
    right = [1.0] * 80 + [0.0] * 20
    assert standard_error(right) == pytest.approx(math.sqrt(0.8 * 0.2 / 99))
