"""Encoded tensors with something wrong, for tests that feed them to decoders."""

import gzip
import random
import zlib
from collections.abc import Callable, Mapping
from functools import cache

import torch
import zstandard
from torch import Tensor

from hanse.tensors.named import from_bytes

DTYPES = (torch.float32, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool)


@cache
def bombs(size: int = 2**30) -> dict[str, bytes]:
    """Small texts that unpack to `size` zeros, or to as many as 10 KB of DEFLATE can hold."""
    block = bytes(2**20)
    packer = zstandard.ZstdCompressor(level=19).compressobj(size=size)
    parts = [packer.compress(block) for _ in range(size // len(block))]
    zstd = b"".join([*parts, packer.flush()])
    unsized = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    parts = [unsized.compress(block) for _ in range(size // len(block))]
    deflated = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    raw = b"".join([deflated.compress(block) for _ in range(8)]) + deflated.flush()
    return {
        "zstd": zstd,
        "zstd without its size": b"".join([*parts, unsized.flush()]),
        "zlib": zlib.compress(bytes(8 * 2**20), 9),
        "deflate": raw,
        "gzip": gzip.compress(bytes(8 * 2**20), 9),
    }


def mutated(message: Mapping[str, Tensor], draw: random.Random) -> tuple[str, dict[str, Tensor]]:
    """What was done, and the message with one of its tensors changed."""
    name, what = draw.choice(sorted(message)), draw.choice(sorted(CHANGES))
    changed = dict(message)
    if what == "gone":
        del changed[name]
    elif what == "one more":
        changed["x" * draw.choice((1, 2000))] = message[name]
    else:
        changed[name] = CHANGES[what](message[name].clone(), draw)
    return f"{name}: {what}", changed


def _some_bytes(tensor: Tensor, draw: random.Random) -> Tensor:
    data = tensor.reshape(-1).view(torch.uint8)
    for _ in range(draw.choice((1, 1, 3, 20)) if len(data) else 0):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data.view(tensor.dtype).reshape(tensor.shape)


def _noise(tensor: Tensor, draw: random.Random) -> Tensor:
    data = torch.tensor(list(draw.randbytes(tensor.nbytes)), dtype=torch.uint8)
    return data.view(tensor.dtype).reshape(tensor.shape)


def _extreme(tensor: Tensor, draw: random.Random) -> Tensor:
    if tensor.dtype == torch.bool:
        return ~tensor
    if not tensor.is_floating_point():
        info = torch.iinfo(tensor.dtype)
        return tensor.fill_(draw.choice((info.min, info.max, 0, 1)))
    largest = torch.finfo(tensor.dtype).max
    value = draw.choice((largest, -largest, 0.0, 1e-40, torch.nan, torch.inf))
    return tensor.fill_(value)


def _shorter(tensor: Tensor, draw: random.Random) -> Tensor:
    if not tensor.dim():
        return tensor.reshape(1)
    return tensor[: draw.randrange(len(tensor) + 1)].contiguous()


def _longer(tensor: Tensor, draw: random.Random) -> Tensor:
    return torch.cat([tensor.reshape(-1)] * draw.choice((2, 3)))


def _packed(tensor: Tensor, draw: random.Random) -> Tensor:
    """A bomb; or the packed bytes of something else of the same length as before."""
    if draw.random() < 0.5:
        return from_bytes(draw.choice(sorted(bombs().values())))
    data = zlib.compress(bytes(tensor.numel() + 1))
    return from_bytes(draw.choice((data, zstandard.compress(bytes(tensor.nbytes)))))


CHANGES: dict[str, Callable[[Tensor, random.Random], Tensor]] = {
    "gone": _noise,  # these two change more than the tensor
    "one more": _noise,
    "some bytes": _some_bytes,
    "noise": _noise,
    "extreme": _extreme,
    "shorter": _shorter,
    "longer": _longer,
    "packed": _packed,
    "dtype": lambda tensor, draw: tensor.to(draw.choice(DTYPES)),
    "shape": lambda tensor, draw: tensor.reshape(draw.choice(((1, -1), (-1, 1), (-1,)))),
}
