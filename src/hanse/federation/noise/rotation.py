"""Randomized Hadamard rotation, which spreads a vector evenly over its coordinates.

As in Kairouz, Liu, Steinke 2021 (2102.06387), but blocks of at most BLOCK numbers are rotated by
themselves, so that little padding is needed.
"""

import math

import torch
from torch import Tensor

from hanse.randomness import RoundContext

BLOCK = 4096  # the most numbers of a block, a power of two


def block_size(size: int) -> int:
    """The numbers of a block for a vector of `size` numbers, a power of two."""
    return min(BLOCK, 1 << max(0, size - 1).bit_length())


def padded_size(size: int) -> int:
    """The numbers of a vector of `size` numbers, padded with zeros to whole blocks."""
    block = block_size(size)
    return -(-size // block) * block


def rotate(vector: Tensor, context: RoundContext) -> Tensor:
    """The vector (size,), float64, padded and rotated (padded_size(size),) with the same norm.

    The signs follow from seed and round, the same for all clients.
    """
    padded = vector.new_zeros(padded_size(len(vector)))
    padded[: len(vector)] = vector
    return _hadamard(padded * _signs(len(padded), context), block_size(len(vector)))


def rotate_back(rotated: Tensor, size: int, context: RoundContext) -> Tensor:
    """The inverse of `rotate` for a vector of `size` numbers."""
    return (_hadamard(rotated, block_size(size)) * _signs(len(rotated), context))[:size]


def _signs(size: int, context: RoundContext) -> Tensor:
    shared = RoundContext(context.seed, context.round)
    drawn = torch.randint(0, 2, [size], generator=shared.generator("rotation"))
    return (2 * drawn - 1).double()


def _hadamard(vector: Tensor, block: int) -> Tensor:
    """Each block times the orthonormal, symmetric Walsh-Hadamard matrix, in log₂(block) steps."""
    half = 1
    while half < block:
        left, right = vector.view(-1, 2, half).unbind(1)
        vector = torch.stack((left + right, left - right), dim=1).view(-1)
        half *= 2
    return vector / math.sqrt(block)
