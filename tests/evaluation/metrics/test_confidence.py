"""Intervals against closed forms, published examples, and coverage by enumeration."""

import math
import statistics
from collections.abc import Sequence

import pytest
from scipy.optimize import minimize_scalar

from hanse.evaluation.metrics.confidence import (
    Interval,
    paired,
    recorded,
    share,
    standard_error,
    student,
)

Z = 1.959963984540054


def changed(gained: int, lost: int, items: int) -> Interval:
    """The interval of so many gained and lost items; of the others, half are right."""
    same = [float(number % 2) for number in range(items - gained - lost)]
    before = [0.0] * gained + [1.0] * lost + same
    found = paired([1.0] * gained + [0.0] * lost + same, before)
    assert found is not None
    return found


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


def test_one_seed_and_equal_seeds_have_no_interval() -> None:
    assert student([0.7]) is None
    assert student([0.5, 0.5, 0.5]) is None
    assert student([0.1 + 0.2, 0.3, 0.3]) is None, "equal up to rounding"
    assert student([1.0, math.inf]) is None and student([1.0, math.nan]) is None


def test_paired_shares_of_a_published_example() -> None:
    """Bentur et al. (2009) in Fagerland, Lydersen & Laake (2014, Statistics in Medicine 33)."""
    found = changed(7, 1, 21)
    assert (round(found.low, 3), round(found.high, 3)) == (0.026, 0.517)


def score(gained: int, lost: int, items: int, difference: float) -> float:
    """The score statistic; the likelihood under the difference is maximised by a search."""

    def deviance(fall: float) -> float:
        rise = fall + difference
        cells = [(gained, rise), (lost, fall), (items - gained - lost, 1 - rise - fall)]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    fall = float(minimize_scalar(deviance, bounds=bounds, options={"xatol": 1e-12}).x)
    variance = (2 * fall + difference - difference**2) / items
    return ((gained - lost) / items - difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("gained", "lost", "items"), [(7, 1, 21), (40, 20, 160), (0, 1, 44), (1, 1, 12), (3, 9, 12)]
)
def test_the_score_test_rejects_just_beyond_the_bounds(gained: int, lost: int, items: int) -> None:
    found = changed(gained, lost, items)
    assert found.value == pytest.approx((gained - lost) / items)
    assert score(gained, lost, items, found.low) == pytest.approx(Z, abs=1e-4)
    assert score(gained, lost, items, found.high) == pytest.approx(-Z, abs=1e-4)


@pytest.mark.parametrize("items", [2, 12, 50, 200])
def test_no_change_has_a_width_and_all_gained_ends_at_one(items: int) -> None:
    bound = Z**2 / (items + Z**2)
    none = changed(0, 0, items)
    assert (none.low, none.value, none.high) == pytest.approx((-bound, 0.0, bound))
    every = changed(items, 0, items)
    assert (every.low, every.high) == pytest.approx(((items - Z**2) / (items + Z**2), 1.0))
    assert changed(3 % items, 1, items).low == pytest.approx(-changed(1, 3 % items, items).high)


@pytest.mark.parametrize(("gained", "lost"), [(4, 0), (3, 0), (10, 2), (9, 3), (30, 15), (30, 18)])
def test_zero_is_outside_if_mcnemar_rejects_it(gained: int, lost: int) -> None:
    rejected = (gained - lost) ** 2 / (gained + lost) > Z**2
    assert (changed(gained, lost, 60).low > 0) == rejected


def coverage(items: int, gain: float, loss: float) -> float:
    """The probability that the interval holds gain − loss, summed over all outcomes."""
    total = 0.0
    for gained in range(items + 1):
        for lost in range(items - gained + 1):
            ways = math.comb(items, gained) * math.comb(items - gained, lost)
            stay = (1 - gain - loss) ** (items - gained - lost)
            found = changed(gained, lost, items)
            total += (
                ways * gain**gained * loss**lost * stay * (found.low <= gain - loss <= found.high)
            )
    return total


@pytest.mark.parametrize(("items", "least"), [(12, 0.935), (30, 0.93), (60, 0.93)])
def test_paired_shares_cover_as_often_as_they_say(items: int, least: float) -> None:
    pairs = [(0.01, 0.01), (0.05, 0.05), (0.1, 0.02), (0.3, 0.1), (0.02, 0.4), (0.2, 0.2)]
    found = [coverage(items, gain, loss) for gain, loss in pairs]
    assert min(found) > least
    assert statistics.fmean(found) < 0.99


def test_wilson_of_published_examples_and_ends() -> None:
    """Newcombe (1998, Statistics in Medicine 17, 857-872) has 81 of 263, 15 of 148, 0 of 20."""
    examples: Sequence[tuple[int, int, float, float]] = [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]
    for right, items, low, high in examples:
        found = share(right / items, items)
        assert (round(abs(found.low), 4), round(found.high, 4)) == (low, high)


def test_other_scores_have_students_interval_or_none() -> None:
    found = paired([1.5, 2.5, 4.0], [1.0, 1.0, 1.0])
    assert found == student([0.5, 1.5, 3.0])
    assert paired([0.25, 0.5], [0.25, 0.5]) is None, "no spread: nothing is known of chance"
    assert paired([1.0], [0.0]) is None


def test_intervals_of_recorded_scores() -> None:
    error = math.sqrt(0.8 * 0.2 / 40)
    of_error = recorded(0.8, error, None, True)
    assert of_error is not None
    assert (of_error.low, of_error.high) == pytest.approx((share(0.8, 40).low, share(0.8, 40).high))
    assert recorded(1.0, 0.0, 12, True) == share(1.0, 12)
    assert recorded(1.0, 0.0, None, True) is None
    # The 97.5 % quantile with one degree of freedom is tan(0.475 π); with very many it is Z.
    few, many = recorded(3.0, 0.5, 2, False), recorded(3.0, 0.5, 1e9, False)
    assert few is not None and few.high - few.value == pytest.approx(math.tan(0.475 * math.pi) / 2)
    assert many is not None and many.high - many.value == pytest.approx(Z / 2)
    assert recorded(3.0, 0.5, None, False) == Interval(3.0, 3 - Z / 2, 3 + Z / 2)
    values = [1.0, 2.0, 6.0]
    of_values = student(values)
    assert of_values is not None
    from_error = recorded(3.0, standard_error(values), 3, False)
    assert from_error is not None and from_error.low == pytest.approx(of_values.low)
    assert recorded(3.0, 0.0, 12, False) is None and recorded(3.0, None, 12, False) is None


def test_the_standard_error_of_right_and_wrong_answers() -> None:
    right = [1.0] * 80 + [0.0] * 20
    assert standard_error(right) == pytest.approx(math.sqrt(0.8 * 0.2 / 99))
