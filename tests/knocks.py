"""Clients that try again and again: in step, or as independent ones, which meet by chance, too."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

NEAR = 0.05  # seconds between two knocks that come at one moment
# Clocks that are wrong by so much: they leave the busy seconds where they were, and no steps.
SHIFTS = [sign * number * 2 * NEAR for number in range(1, 21) for sign in (-1, 1)]

Knocks = Mapping[str, Sequence[float]]


def share(knocks: Knocks) -> float:
    """The share of knocks, over all pairs of clients, that one of the other's is near."""
    met = sum(_met(some, others) for some, others in _pairs(knocks))
    return 2 * met / sum(len(some) + len(others) for some, others in _pairs(knocks))


def share_by_chance(knocks: Knocks) -> float:
    """The share that is expected of independent clients that knock as often."""
    met = sum(_by_chance(some, others) for some, others in _pairs(knocks))
    return 2 * met / sum(len(some) + len(others) for some, others in _pairs(knocks))


def least_probability(knocks: Knocks) -> float:
    """How probable it is, for the pair that met most oddly, to meet so often by chance."""
    return min(
        _tail(_met(some, others), _by_chance(some, others)) for some, others in _pairs(knocks)
    )


def _pairs(knocks: Knocks) -> list[tuple[Sequence[float], Sequence[float]]]:
    return list(combinations(knocks.values(), 2))


def _met(some: Sequence[float], others: Sequence[float], shift: float = 0.0) -> int:
    return sum(abs(at + shift - other) < NEAR for at in some for other in others)


def _by_chance(some: Sequence[float], others: Sequence[float]) -> float:
    """Expected meetings: with wrong clocks, but no fewer than if all seconds were alike."""
    times = [*some, *others]
    even = len(some) * len(others) * 2 * NEAR / (max(times) - min(times))
    return max(even, statistics.mean(_met(some, others, shift) for shift in SHIFTS))


def _tail(met: int, expected: float) -> float:
    """The probability of at least so many meetings, if they come by Poisson's law."""
    fewer = (math.exp(-expected) * expected**count / math.factorial(count) for count in range(met))
    return max(1 - sum(fewer), 0.0)
