"""95 % confidence intervals of scores, and of paired differences of scores.

Scores of 0 and 1 have score intervals: they hold for few rows, too, and have a width if no score
changes. Means of other scores have Student's t intervals, which need scores that differ.
"""

import math
from collections.abc import Callable, Sequence
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
    """The mean of after − before over the same items: Tango's interval for 0 and 1, else Student's.

    Pairing removes the difficulty of items, which both share, so the interval is narrower than that
    of two separate means. None for a single item. None if the scores are not all 0 or 1, and every
    item changes by the same amount, which says nothing about chance.
    """
    if len(after) == len(before) == 1:
        return None
    if len(after) != len(before) or not after:
        raise ValueError(f"{len(after)} and {len(before)} items cannot be paired")
    differences = [a - b for a, b in zip(after, before, strict=True)]
    if not {0.0, 1.0}.issuperset((*after, *before)):
        return student(differences)
    return _paired_shares(differences.count(1.0), differences.count(-1.0), len(differences))


def share(value: float, items: float) -> Interval:
    """A share of independent items with the interval of Wilson (1927, JASA 22, 209-212).

    items: their number; for items in groups the effective one, which need not be whole.
    """
    middle = (value + Z95**2 / (2 * items)) / (1 + Z95**2 / items)
    half = Z95 * math.sqrt(max(0.0, value * (1 - value)) / items + (Z95 / (2 * items)) ** 2)
    half /= 1 + Z95**2 / items
    return Interval(value, middle - half, middle + half)


def recorded(
    value: float, error: float | None, items: float | None, is_share: bool
) -> Interval | None:
    """The interval of a score from its standard error and its number of items, without the items.

    A share has Wilson's interval for as many items as its error implies: value·(1 − value)/error²,
    and for `items` where the error is 0 or unknown. Another score has Student's t interval, or the
    normal one if the number of items is unknown. None if the interval would have no width, or
    cannot be known.
    """
    if is_share:
        items = value * (1 - value) / error**2 if error and 0 < value < 1 else items
        return share(value, items) if items else None
    if not error:
        return None
    half = error * (_student95(items) if items and items > 1 else Z95)
    return Interval(value, value - half, value + half)


def student(values: Sequence[float]) -> Interval | None:
    """The mean of independent values, such as one per seed, with Student's t 95 % interval.

    None for a single value, for equal values, whose spread is not known, and for infinite ones.
    """
    if len(values) < 2:
        return None
    mean, error = sum(values) / len(values), standard_error(values)
    if not error > 1e-12 * max(1.0, *map(abs, values)):  # equal up to rounding, or not finite
        return None
    half = _student95(len(values)) * error
    return Interval(mean, mean - half, mean + half)


def _student95(items: float) -> float:
    """The 97.5 % quantile of Student's t distribution for a mean of so many items."""
    return float(special.stdtrit(items - 1, 0.975))


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of two or more values."""
    mean, count = sum(values) / len(values), len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def _paired_shares(gained: int, lost: int, items: int) -> Interval:
    """The score interval of Tango (1998, Statistics in Medicine 17, 891-908).

    gained, lost: the numbers of items that rise from 0 to 1, and that fall from 1 to 0. The bounds
    are the largest and smallest differences that a score test does not reject, so 0 is outside if
    McNemar's test rejects it. Two items or more of no change have ± z²/(items + z²).
    """
    value = (gained - lost) / items

    def accepted(difference: float) -> bool:
        slope = (2 * items - gained + lost) * difference - gained - lost
        root = math.sqrt(max(0.0, slope**2 + 8 * items * lost * difference * (1 - difference)))
        fall = (root - slope) / (4 * items)  # the likeliest probability of a fall
        variance = items * (2 * fall + difference * (1 - difference))
        return (gained - lost - items * difference) ** 2 <= Z95**2 * variance

    return Interval(value, _bound(accepted, value, -1.0), _bound(accepted, value, 1.0))


def _bound(accepted: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of the accepted values between one of them and one beyond, by bisection."""
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepted(middle) else (inside, middle)
    return inside
