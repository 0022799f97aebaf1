"""Gaussian noise of differential privacy, from the operating system's randomness alone."""

import math
import os

import torch
from torch import Tensor

from hanse.randomness import RoundContext

BITS = 53  # of a uniform number


def random_bytes(count: int, context: RoundContext) -> bytes:
    """Random bytes of the operating system.

    context: not used, since noise that follows from a run's settings would hide nothing. Tests that
    repeat a run put bytes that follow from it in the place of this function.
    """
    return os.urandom(count)


def uniform(count: int, context: RoundContext) -> Tensor:
    """Independent numbers (count,) between 0 and 1, float64, and never 0."""
    if not count:
        return torch.zeros(0, dtype=torch.float64)
    words = torch.frombuffer(bytearray(random_bytes(8 * count, context)), dtype=torch.int64)
    # The upper bits, at the middles of 2^53 steps, since the logarithm of 0 is infinite.
    numbers: Tensor = ((words >> (64 - BITS)).bitwise_and(2**BITS - 1).double() + 0.5) / 2**BITS
    return numbers


def gaussian(shape: torch.Size, context: RoundContext) -> Tensor:
    """Independent standard normal numbers (shape,), float64, by Box and Muller's transform."""
    pairs = (shape.numel() + 1) // 2
    if not pairs:
        return torch.zeros(shape, dtype=torch.float64)
    numbers = uniform(2 * pairs, context)
    radius = torch.sqrt(-2 * torch.log(numbers[:pairs]))
    angle = 2 * math.pi * numbers[pairs:]
    normal = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])
    return normal[: shape.numel()].reshape(shape)
