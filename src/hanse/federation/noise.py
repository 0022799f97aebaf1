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


def gaussian(shape: torch.Size, context: RoundContext) -> Tensor:
    """Independent standard normal numbers (shape,), float64, by Box and Muller's transform."""
    pairs = (shape.numel() + 1) // 2
    if not pairs:
        return torch.zeros(shape, dtype=torch.float64)
    words = torch.frombuffer(bytearray(random_bytes(16 * pairs, context)), dtype=torch.int64)
    # The upper bits, at the middles of 2^53 steps: never 0, whose logarithm is infinite.
    uniform = ((words >> (64 - BITS)).bitwise_and(2**BITS - 1).double() + 0.5) / 2**BITS
    radius = torch.sqrt(-2 * torch.log(uniform[:pairs]))
    angle = 2 * math.pi * uniform[pairs:]
    normal = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])
    return normal[: shape.numel()].reshape(shape)
