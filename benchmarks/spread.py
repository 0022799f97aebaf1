"""What several seeds came to, as it is kept: means, and intervals over reviews and over seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from hanse.evaluation.metrics.confidence import Interval, paired, student

Row = dict[str, Any]


def packed(values: Sequence[float]) -> str:
    """Right and wrong as 1 and 0, a digit for each review."""
    if not set(values) <= {0.0, 1.0}:
        raise ValueError("reviews are right or wrong, but some have another score")
    return "".join(f"{value:.0f}" for value in values)


def unpacked(digits: str) -> list[float]:
    """The same as numbers."""
    return [float(digit) for digit in digits]


def ahead(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Row:
    """How far the first is ahead, with two intervals; each has the reviews' scores by seed.

    by_item: over test reviews, each a mean over the seeds: for these deals alone.
    by_seed: over the seeds' differences, by Student's t: for deals like these.
    """
    own, other = (
        [statistics.fmean(same) for same in zip(*runs, strict=True)] for runs in (first, second)
    )
    seeds = [statistics.fmean(a) - statistics.fmean(b) for a, b in zip(first, second, strict=True)]
    return {"by_item": bounds(paired(own, other)), "by_seed": over_seeds(seeds)}


def ahead_of(runs: Sequence[Row], others: Sequence[Row]) -> Row:
    """The same of kept runs, as it stands in the row of the first: ahead, and ahead_by_seed."""
    own, other = ([unpacked(run["items"]) for run in by_seed] for by_seed in (runs, others))
    found = ahead(own, other)
    return {"ahead": found["by_item"], "ahead_by_seed": found["by_seed"]}


def standing(by_seed: Sequence[Sequence[float]]) -> Row:
    """A mean over seeds with its interval; each seed has the reviews' scores."""
    values = [statistics.fmean(one) for one in by_seed]
    interval = over_seeds(values)
    return {
        "accuracy": statistics.fmean(values),
        "seeds": values,
        "over_seeds": interval[1:] if interval else None,
        "test_items": len(by_seed[0]),
    }


def over_seeds(differences: Sequence[float]) -> list[float] | None:
    """The mean of a difference for each seed, with Student's t interval."""
    return bounds(student(differences))


def bounds(interval: Interval | None) -> list[float] | None:
    """An interval as it is kept."""
    return [interval.value, interval.low, interval.high] if interval else None
