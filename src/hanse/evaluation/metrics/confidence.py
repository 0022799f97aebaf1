"""Confidence intervals for means and for paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from scipy import special


Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def paired(after: Sequence[float], before: Sequence[float]) -> Interval | None:
    """The mean of after − before over the same items, with its normal 95 % interval.

    Pairing removes the difficulty of items, which both share, so the interval is narrower than that
    of two separate means. None for a single item.
    """
    if len(after) == len(before) == 1:
        return None
    if len(after) != len(before) or not after:
        raise ValueError(f"{len(after)} and {len(before)} items cannot be paired")
    differences = [a - b for a, b in zip(after, before, strict=True)]
    mean = sum(differences) / len(differences)
    half = Z95 * standard_error(differences)
    return Interval(mean, mean - half, mean + half)


def student(values: Sequence[float]) -> Interval | None:
    """The mean of independent values, such as one per seed, with Student's t 95 % interval.

    None for a single value.
    """
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    half = float(special.stdtrit(len(values) - 1, 0.975)) * standard_error(values)
    return Interval(mean, mean - half, mean + half)


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of two or more values."""
    mean, count = sum(values) / len(values), len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
