"""Exact draws of the discrete Gaussian distribution, from the operating system's random bytes.

Canonne, Kamath, Steinke 2020 (2004.00010), algorithms 1 to 3, on many numbers at once. All is done
with integers, so no rounding changes a probability. One event is left out: a proposal of FARTHEST
or more deviations, whose probability is below 10^-50 and which is kept in one of 10^3500 cases.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.federation.noise import os_noise
from hanse.randomness import RoundContext

MOST_DEVIATION = 2**24  # so that all products below are less than 2^63
FARTHEST = 128
BATCH = 2**16  # numbers that are drawn at a time

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Source = Callable[[int], bytes]  # so many random bytes


def discrete_gaussian(count: int, deviation: int, context: RoundContext) -> Tensor:
    """Independent integers (count,), int64: each is x with a probability ∝ exp(−x²/(2σ²)).

    deviation: σ, a whole number from 1 to MOST_DEVIATION; the standard deviation is that of σ.
    Raises ValueError for another one.
    """
    if not 1 <= deviation <= MOST_DEVIATION:
        raise ValueError(f"the deviation {deviation} is not from 1 to {MOST_DEVIATION}")

    def source(size: int) -> bytes:
        return os_noise.random_bytes(size, context)

    drawn = [np.empty(0, np.int64)]
    while (missing := count - sum(map(len, drawn))) > 0:
        drawn.append(_accepted(min(2 * missing, BATCH), deviation, source)[:missing])
    return torch.from_numpy(np.concatenate(drawn))


def _accepted(count: int, deviation: int, source: Source) -> Integers:
    """Algorithm 3: what is accepted of so many proposals of a discrete Laplace distribution."""
    proposed = _laplace(count, deviation, source)
    excess = np.abs(proposed) - deviation
    return proposed[_exponential(excess * excess, 2 * deviation**2, source)]


def _laplace(count: int, scale: int, source: Source) -> Integers:
    """Algorithm 2: integers, each x with a probability ∝ exp(−|x|/scale); at most `count`."""
    low = _uniform(scale, count, source)
    low = low[_fraction(low, scale, source)]
    high, active = np.zeros_like(low), np.arange(len(low))
    while len(active):
        active = active[_fraction(np.ones(len(active), np.int64), 1, source)]
        high[active] += 1
    near = high < FARTHEST
    size = low[near] + scale * high[near]
    negative = _uniform(2, len(size), source) == 1
    kept = ~(negative & (size == 0))  # zero has one sign
    signed: Integers = np.where(negative, -size, size)[kept]
    return signed


def _exponential(numerators: Integers, denominator: int, source: Source) -> Flags:
    """Algorithm 1 for any γ = numerator ÷ denominator: True with the probability exp(−γ)."""
    whole, rest = numerators // denominator, numerators % denominator
    true = _fraction(rest, denominator, source)
    active = np.flatnonzero(true & (whole > 0))
    while len(active):
        kept = _fraction(np.ones(len(active), np.int64), 1, source)
        true[active[~kept]] = False
        whole[active] -= 1
        active = active[kept & (whole[active] > 0)]
    return true


def _fraction(numerators: Integers, denominator: int, source: Source) -> Flags:
    """Algorithm 1 for γ = numerator ÷ denominator ≤ 1: True with the probability exp(−γ).

    k grows while a draw of probability γ/k is true; exp(−γ) is the probability that it ends odd.
    """
    odd, active, k = np.ones(len(numerators), np.bool_), np.arange(len(numerators)), 1
    while len(active):
        below = _uniform(denominator, len(active), source) < numerators[active]
        active = active[below & (_uniform(k, len(active), source) == 0)]
        odd[active] = ~odd[active]
        k += 1
    return odd


def _uniform(bound: int, count: int, source: Source) -> Integers:
    """Integers (count,) from 0 to bound − 1, each with the same probability; bound < 2^63."""
    if bound == 1:
        return np.zeros(count, np.int64)
    bits = 16 if bound <= 2**8 else 64
    limit, size = (2**bits // bound) * bound - 1, bits // 8
    drawn = [np.empty(0, np.int64)]
    while (missing := count - sum(map(len, drawn))) > 0:
        words = np.frombuffer(source(missing * size), dtype=f"<u{size}")
        drawn.append((words[words <= limit] % bound).astype(np.int64))
    return np.concatenate(drawn)
