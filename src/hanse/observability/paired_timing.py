"""Two ways of doing the same work, timed in turns.

Other programs slow down both members of a pair, and a pair that was interrupted does not move the
median of the ratios.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from time import perf_counter

from hanse.observability.processor import allowed_cores

FEWEST = 5  # pairs before an answer ends a comparison
ENOUGH = 3  # pairs before an answer without doubt does, and without which there is no answer
BEYOND_DOUBT = 1.25  # times as far as an answer needs
SURE = 0.05  # the probability at most that the range of a ratio does not hold the true one
NOTABLE = 1.05  # times as fast; less is called equally fast


@dataclass(frozen=True)
class Way:
    """One of two ways of doing the same work."""

    name: str
    work: Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing the same work, timed in turns.

    seconds: the median of each way. ratio: the median over the pairs of the first way's seconds ÷
    the second's. low, high: the range that holds the true ratio, but for 5 cases in 100.
    """

    first: str
    second: str
    seconds: tuple[float, float]
    ratio: float
    low: float
    high: float
    pairs: int

    def second_wins(self, clear: float) -> bool:
        """True if the second way is `clear` times as fast, and noise does not explain it."""
        return self.pairs >= ENOUGH and self.low > 1 and self.ratio >= clear

    def first_wins(self, clear: float) -> bool:
        """True if the first way is `clear` times as fast, and noise does not explain it."""
        return self.pairs >= ENOUGH and self.high < 1 and self.ratio * clear <= 1

    def __str__(self) -> str:
        measured = f"here (measured, {self.pairs} {'pair' if self.pairs == 1 else 'pairs'})"
        if self.second_wins(NOTABLE):
            return f"{self.second}: {_times(self.ratio)} as fast as {self.first} {measured}"
        if self.first_wins(NOTABLE):
            return f"{self.first}: {_times(1 / self.ratio)} as fast as {self.second} {measured}"
        return f"{self.first}: no clear difference from {self.second} {measured}"


@dataclass(frozen=True)
class Measurement:
    """Comparisons on this machine, and the state that it was in.

    threads: of torch. load: as `load_average` gives it.
    """

    comparisons: tuple[Comparison, ...] = ()
    threads: int | None = None
    load: float | None = None


def load_average() -> float | None:
    """Processes that wanted to run, on average over a minute; None if the system cannot tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def is_crowded(threads: int, load: float | None) -> bool:
    """True if these threads and the processes that want to run exceed the cores by more than one.

    The one is this process itself, which is part of the load.
    """
    return load is not None and threads + load > allowed_cores() + 1


def compare(first: Way, second: Way, clear: float, deadline: float) -> Comparison | None:
    """Time two ways in turns until it is sure whether the second is `clear` times as fast.

    deadline: by `time.perf_counter`; after it no pair begins. None if it has passed already.
    """
    if perf_counter() >= deadline:
        return None
    for way in (first, second):
        way.work()  # not timed: libraries initialize
    pairs: list[tuple[float, float]] = []
    while True:
        pairs.append(_pair(first, second, swapped=len(pairs) % 2 == 1))
        comparison = _comparison(first, second, pairs)
        if perf_counter() >= deadline or _is_sure(comparison, clear):
            return comparison


def _is_sure(comparison: Comparison, clear: float) -> bool:
    """True if more pairs would not change whether the second way is `clear` times as fast."""
    margin = 1.0 if comparison.pairs >= FEWEST else BEYOND_DOUBT
    beyond = comparison.low >= clear * margin or comparison.high * margin < clear
    return beyond and comparison.pairs >= ENOUGH


def _pair(first: Way, second: Way, swapped: bool) -> tuple[float, float]:
    """The seconds of both ways. swapped: the second begins."""
    if swapped:
        later, earlier = _pair(second, first, swapped=False)
        return earlier, later
    return _seconds(first), _seconds(second)


def _seconds(way: Way) -> float:
    start = perf_counter()
    way.work()
    return perf_counter() - start


def _comparison(first: Way, second: Way, pairs: Sequence[tuple[float, float]]) -> Comparison:
    """The medians over pairs of seconds, and the range of the ratio."""
    ratios = sorted(one / other for one, other in pairs)
    low, high = _range(ratios)
    seconds = (median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))
    return Comparison(first.name, second.name, seconds, median(ratios), low, high, len(pairs))


def _range(ordered: Sequence[float]) -> tuple[float, float]:
    """The range of the true median, from the values in order: that of the sign test.

    The true median lies outside the k-th value from either end with the probability that at most
    k - 1 of n coins show heads, twice. Fewer than 6 values give the range of all.
    """
    count, outside, place = len(ordered), 0.0, 0
    for k in range(count // 2):
        outside += 2 * comb(count, k) / 2**count
        if outside > SURE:
            break
        place = k
    return ordered[place], ordered[count - 1 - place]


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 1.5 else f"{ratio:.2f} times"
