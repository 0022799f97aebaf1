"""Whole steps: the grid on which updates with noise are added, and the rounding of updates to it.

Kairouz, Liu, Steinke 2021 (2102.06387): scaling, conditional randomized rounding, and its norm.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hanse.federation.accounting.concentrated import LEAST_DEVIATION
from hanse.federation.noise.discrete_gaussian import MOST_DEVIATION
from hanse.federation.noise.rotation import block_size, padded_size

FINEST = 20  # log₂ of the most steps of a clip norm
MOST_LONGER = 2.0  # of Δ² ÷ C²; beyond, rounding would cost more than 41 % of noise
ODDS = 40 * math.log(2)  # −log of the probability that a number of a round's sum is out of range
TRIES = 1000  # of rounding


@dataclass(frozen=True)
class Steps:
    """The grid of a round.

    clip: the clip norm in steps. square: the largest squared norm of a rounded update, in steps.
    deviation: σ of each client's discrete Gaussian noise, in steps.
    """

    clip: int
    square: int
    deviation: int


def choose(size: int, clients: int, shares: int, noise_multiplier: float, most: int) -> Steps:
    """The finest grid whose sums are in range but for odds of 2^−40 a round.

    size: numbers of an update. clients: the most summands. shares: those whose noise together has
    the standard deviation noise_multiplier · √square. most: the largest absolute value of a sum.

    A rotated update has coordinates beyond C·√(2·log(·)/block) with these odds (Hoeffding), and the
    sum of all noise beyond √clients·σ·√(2·log(·)), since a discrete Gaussian is subgaussian
    (2004.00010). Sums of discrete Gaussians of few steps would be unlike one of
    many; LEAST_DEVIATION bounds that.

    Raises ValueError if every such grid is too coarse.
    """
    block, padded = block_size(size), padded_size(size)
    flat = math.sqrt(2 * (ODDS + math.log(4 * clients * padded)) / block)
    tail = math.sqrt(2 * (ODDS + math.log(4 * padded)))
    for power in range(FINEST, -1, -1):
        clip = 2**power
        square = largest_square(clip, padded)
        deviation = math.ceil(noise_multiplier * math.sqrt(square / shares) * (1 + 1e-12))
        deviation = max(LEAST_DEVIATION, deviation)
        largest = clients * (min(1.0, flat) * clip + 1) + tail * math.sqrt(clients) * deviation
        if largest <= most and deviation <= MOST_DEVIATION:
            if square <= MOST_LONGER * clip**2:
                return Steps(clip, square, deviation)
            break
    raise ValueError(f"no grid of {most} steps is fine enough for {size} numbers")


def largest_square(clip: int, size: int) -> int:
    """Δ²: the largest squared norm that rounding may leave of a norm of `clip` steps.

    min{(C + √d)², C² + d/4 + √(2·log(1/β))·(C + √d/2)} with β = exp(−1/2): a rounding is at most so
    long with a probability of 1 − β at least.
    """
    root = math.sqrt(size)
    return math.floor(min((clip + root) ** 2, clip**2 + size / 4 + clip + root / 2))


def rounded(vector: Tensor, square: int, generator: torch.Generator) -> Tensor:
    """The vector (size,) in whole numbers, int64, rounded at random until it is short enough.

    Each is rounded up with the probability of its fraction. square: the largest squared norm, which
    no result exceeds. Who knows the generator's draws learns nothing more of a sum with noise: its
    promise holds for each rounding by itself.
    """
    floor = vector.floor()
    fraction, low = vector - floor, floor.long()
    for _ in range(TRIES):
        up = torch.rand(len(vector), generator=generator, dtype=torch.float64) < fraction
        whole = low + up
        if _square(whole) <= square:
            return whole
    whole = vector.trunc().long()  # shorter than the vector, which was short enough
    if _square(whole) > square:
        raise ValueError(f"an update is longer than √{square} steps before it is rounded")
    return whole


def _square(whole: Tensor) -> int:
    return int((whole * whole).sum())
