"""Decisions between two ways of doing the same work, on a clock that the tests set."""

import random
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat

import pytest

from hanse.observability import paired_timing
from hanse.observability.paired_timing import Comparison, Way, compare, is_crowded

CLEAR = 1.05


class Clock:
    """A clock that only the work moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def way(self, name: str, seconds: Iterator[float]) -> Way:
        """Work that takes these seconds, one after the other."""

        def work() -> None:
            self.now += next(seconds)

        return Way(name, work)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(paired_timing, "perf_counter", clock)
    return clock


Compare = Callable[..., Comparison]


@pytest.fixture
def compared(clock: Clock) -> Compare:
    def run(first: Iterator[float], second: Iterator[float], deadline: float = 1e9) -> Comparison:
        ways = clock.way("slow", first), clock.way("fast", second)
        comparison = compare(*ways, CLEAR, deadline)
        assert comparison is not None
        return comparison

    return run


def noisy(seconds: float, spread: float, seed: int, outliers: float = 0.0) -> Iterator[float]:
    """Seconds with noise; a share of them is ten times as long."""
    random_numbers = random.Random(seed)
    while True:
        factor = 10.0 if random_numbers.random() < outliers else 1.0
        yield seconds * factor * (1 + spread * random_numbers.random())


def test_a_result_beyond_doubt_takes_three_pairs(compared: Compare) -> None:
    comparison = compared(chain([9.0], repeat(0.4)), chain([5.0], repeat(0.2)))
    assert (comparison.pairs, comparison.ratio) == (3, pytest.approx(2.0))  # the first call is free
    assert comparison.seconds == pytest.approx((0.4, 0.2))
    assert comparison.second_wins(CLEAR) and not comparison.first_wins(CLEAR)
    assert str(comparison) == "fast: 2.0 times as fast as slow here (measured, 3 pairs)"


def test_a_tie_within_noise_has_no_winner(compared: Compare) -> None:
    for seed in range(20):
        comparison = compared(noisy(1.0, 0.1, seed), noisy(1.0, 0.1, 100 + seed), deadline=1e9)
        assert not comparison.second_wins(CLEAR) and not comparison.first_wins(CLEAR), seed
        assert "no clear difference" in str(comparison)


def test_a_small_gain_is_measured_for_longer_than_a_large_one(compared: Compare) -> None:
    small = compared(noisy(1.1, 0.2, 1), noisy(1.0, 0.2, 2))
    large = compared(noisy(3.0, 0.2, 1), noisy(1.0, 0.2, 2))
    assert small.pairs > large.pairs == 3
    assert small.second_wins(CLEAR) and small.ratio == pytest.approx(1.1, rel=0.05)


def test_outliers_of_a_busy_machine_do_not_decide(compared: Compare) -> None:
    """One time in five is ten times as long, of either way."""
    for seed in range(20):
        first, second = noisy(2.0, 0.05, seed, 0.2), noisy(1.0, 0.05, 50 + seed, 0.2)
        comparison = compared(first, second)
        assert comparison.second_wins(CLEAR), seed
        equal = compared(noisy(1.0, 0.02, seed, 0.2), noisy(1.0, 0.02, 50 + seed, 0.2))
        assert not equal.second_wins(CLEAR), seed


def test_the_second_way_begins_every_other_pair(clock: Clock) -> None:
    """What the earlier of two suffers, such as a cold cache, is not taken for the first way's."""
    order: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def note() -> None:
            order.append(name)
            clock.now += 1.0

        return note

    compare(Way("a", work("a")), Way("b", work("b")), CLEAR, deadline=1e9)
    assert "".join(order[2:10]) == "abbaabba"


def test_no_pair_begins_after_the_deadline(clock: Clock, compared: Compare) -> None:
    comparison = compared(repeat(1.1), repeat(1.05), deadline=10.0)
    assert comparison.pairs == 4  # two calls that are not timed, then 2.15 seconds a pair
    clock.now = 10.0
    assert compare(Way("a", lambda: 1), Way("b", lambda: 1), CLEAR, deadline=10.0) is None


def test_too_few_pairs_decide_nothing(compared: Compare) -> None:
    comparison = compared(repeat(40.0), repeat(1.0), deadline=50.0)
    assert (comparison.pairs, comparison.ratio) == (1, 40.0)
    assert not comparison.second_wins(CLEAR)
    assert str(comparison) == "slow: no clear difference from fast here (measured, 1 pair)"


def test_the_first_way_may_win(compared: Compare) -> None:
    comparison = compared(repeat(1.0), repeat(1.25))
    assert comparison.first_wins(CLEAR) and not comparison.second_wins(CLEAR)
    assert str(comparison) == "slow: 1.25 times as fast as fast here (measured, 3 pairs)"


@pytest.mark.parametrize(
    ("count_", "place"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (100, 39)]
)
def test_the_range_is_that_of_the_sign_test(count_: int, place: int) -> None:
    """For 9, 12 and 100 values, tables give the 2nd, 3rd and 40th from either end for 95 %."""
    values = [float(value) for value, _ in zip(count(), range(count_), strict=False)]
    assert paired_timing._range(values) == (values[place], values[-1 - place])


def test_a_machine_is_crowded_if_threads_lack_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_timing, "allowed_cores", lambda: 4)
    assert not is_crowded(4, 0.9) and is_crowded(4, 1.5)
    assert not is_crowded(2, 2.9) and is_crowded(2, 3.5)
    assert not is_crowded(8, None)
