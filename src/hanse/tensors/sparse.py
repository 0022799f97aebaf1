"""Few of many numbers: their choice, and their places as two bytes each.

A place is the gap to the place before it, within blocks of 65,536 numbers; each block has a count.
Gaps are small numbers, which compress well, and places of gaps are sorted and unique by themselves.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.tensors.serialization import MessageError

BLOCK = 2**16  # numbers; a gap within it fits into 16 bits
Integers = NDArray[np.integer]


def kept(share: float, numbers: int) -> int:
    """The number of numbers that a share leaves: at least one, if there are any."""
    return min(numbers, max(1, round(share * numbers)))


def blocks(numbers: int) -> int:
    """The number of blocks of so many numbers."""
    return -(-numbers // BLOCK)


def largest_magnitudes(numbers: Tensor, count: int) -> Tensor:
    """The places of the largest |x| of float32 numbers (n,), sorted: (count,).

    Bits of positive floats are in the order of the floats; NaN comes above all.
    """
    bits = numbers.detach().cpu().contiguous().numpy().view(np.int32)
    return torch.from_numpy(_largest_places(bits & 0x7FFFFFFF, count))


def random_places(seed: int, numbers: int, count: int) -> Tensor:
    """Places that are drawn without replacement, sorted: (count,).

    The same on all machines: the raw numbers of Philox never change, unlike other draws of numpy
    and torch.
    """
    raw = np.random.Philox(key=seed).random_raw(-(-numbers // 2))
    return torch.from_numpy(_largest_places(raw.view(np.uint32)[:numbers], count))


def to_gaps(places: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    """The gaps (k,) and the counts (blocks,) of sorted places (k,) among so many numbers.

    gaps: how many numbers lie between two places, in the bits of int16. counts: int32.
    """
    block, offset = np.divmod(places.numpy(), BLOCK)
    first = np.diff(block, prepend=-1) != 0
    gaps = np.where(first, offset, np.diff(places.numpy(), prepend=0) - 1)
    counts = np.bincount(block, minlength=blocks(numbers))
    signed = gaps.astype(np.uint16).view(np.int16)
    return torch.from_numpy(signed), torch.from_numpy(counts.astype(np.int32))


def from_gaps(gaps: Tensor, counts: Tensor, numbers: int) -> Tensor:
    """The places (k,) of `to_gaps`, sorted and unique; raises MessageError for anything else."""
    if gaps.dtype != torch.int16 or gaps.dim() != 1:
        raise MessageError(f"gaps came as {tuple(gaps.shape)} {gaps.dtype}")
    if counts.dtype != torch.int32 or counts.shape != (blocks(numbers),):
        raise MessageError(f"{numbers:,} numbers came with counts of {tuple(counts.shape)}")
    lengths = counts.cpu().numpy().astype(np.int64)
    if (lengths < 0).any() or lengths.sum() != len(gaps):
        raise MessageError(f"{len(gaps):,} gaps came with counts of {int(lengths.sum()):,}")
    steps = gaps.cpu().contiguous().numpy().view(np.uint16).astype(np.int64) + 1
    ends = np.concatenate([[0], np.cumsum(steps)])
    before = ends[np.cumsum(lengths) - lengths]  # of all blocks before
    offsets = ends[1:] - np.repeat(before, lengths) - 1
    places = offsets + np.repeat(np.arange(len(lengths)) * BLOCK, lengths)
    if (offsets >= BLOCK).any() or (places >= numbers).any():
        raise MessageError("gaps lead out of their block")
    return torch.from_numpy(places)


def _largest_places(keys: Integers, count: int) -> NDArray[np.int64]:
    """The places of the largest keys (n,), sorted: (count,). Of equal keys the first ones count.

    It takes linear time, since only one key is put into its place.
    """
    if not count:
        return np.empty(0, np.int64)
    least = np.partition(keys, len(keys) - count)[len(keys) - count]
    above, equal = np.flatnonzero(keys > least), np.flatnonzero(keys == least)
    return np.sort(np.concatenate([above, equal[: count - len(above)]]))
