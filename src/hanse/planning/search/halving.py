"""Successive halving (Jamieson & Talwalkar 2016, 1502.07943): few rounds for many, many for few.

All trials train for a rung's rounds, and a third of them, with the best scores, goes on to the next
rung. Optuna's own SuccessiveHalvingPruner decides on each trial when it arrives (ASHA), which suits
many machines at a time. On one machine its first trials would always go on, and a good one that
arrives second may be stopped by the first for good; so all trials of a rung are compared here.
"""

import math
from collections.abc import Mapping, Sequence

REDUCTION = 3  # one of so many trials goes on
RUNGS = 3  # at most
LEAST = 2  # trials that go on: the best has a rival with as many rounds

Score = tuple[
    float, float
]  # of a metric, and the loss, of which the smaller decides between equals


def rungs(rounds: int) -> list[int]:
    """The rounds after which trials are compared; the last rung has all of them."""
    return sorted({math.ceil(rounds / REDUCTION**step) for step in range(RUNGS)})


def kept(trials: int) -> int:
    """The number of trials that go on, of so many with a score at the rung."""
    return min(trials, max(LEAST, math.ceil(trials / REDUCTION)))


def ranked(scores: Mapping[int, Score], lower: bool) -> list[int]:
    """The trials by their scores at a rung, the best first; of equal ones the first.

    lower: a smaller value of the metric is better.
    """

    def place(number: int) -> tuple[float, float, int]:
        value, loss = scores[number]
        return value if lower else -value, loss, number

    return sorted(scores, key=place)


def goes_on(number: int, scores: Mapping[int, Score], lower: bool) -> bool:
    """True if a trial goes on; scores: of all trials at its rung, by number."""
    return number in ranked(scores, lower)[: kept(len(scores))]


def all_rounds(trials: int, steps: Sequence[int]) -> int:
    """The rounds of all trials together."""
    total, before = 0, 0
    for rung in steps:
        total += trials * (rung - before)
        trials, before = kept(trials), rung
    return total
