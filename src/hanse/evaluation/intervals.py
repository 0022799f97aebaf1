"""Confidence intervals for means and for paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def paired(after: Sequence[float], before: Sequence[float]) -> Interval | None:
    """The mean of after − before over the same items, with its normal 95 % interval.

    Pairing removes what makes items hard or easy for both, so the interval is narrower than that
    of two separate means. One item alone has none.
    """
    if len(after) == len(before) == 1:
        return None
    if len(after) != len(before) or not after:
        raise ValueError(f"{len(after)} and {len(before)} items cannot be paired")
    differences = [a - b for a, b in zip(after, before, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / (count - 1)
    half = Z95 * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half)
