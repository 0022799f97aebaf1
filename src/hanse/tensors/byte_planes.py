"""Tensors as bytes for a lossless codec: the bytes of equal significance stand together.

The first byte of a float32 holds its sign and most of its exponent, and differs little from number
to number; the last byte of its mantissa is noise. Codecs compress each such plane of bytes better
than numbers one after another. The tensors of one dtype share their planes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.tensors.named import Tensors, from_bytes, to_bytes
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import DTYPES, Table

Bytes = NDArray[np.uint8]


def pack(tensors: Tensors, shuffle: bool) -> tuple[bytes, bytes]:
    """The table of tensors, and the bytes of all; shuffle: whether they stand by significance."""
    table = Table.of(tensors)
    parts = []
    for dtype, names in _by_dtype(table):
        flat = torch.cat([tensors[name].detach().cpu().reshape(-1) for name in names])
        numbers = flat.view(torch.uint8).numpy().reshape(-1, dtype.itemsize)
        parts.append((numbers.T if shuffle else numbers).tobytes())
    return to_bytes(table.to_tensor()), b"".join(parts)


def unpack(table: bytes, data: memoryview, shuffle: bool) -> dict[str, torch.Tensor]:
    """The tensors of `pack`; raises MessageError for a table that does not fit the bytes."""
    forms = Table.read(from_bytes(table), DTYPES)
    if forms.bytes != len(data):
        raise MessageError(f"a table of {forms.bytes:,} bytes came with {len(data):,}")
    result, start = {}, 0
    for dtype, names in _by_dtype(forms):
        sizes = [forms.entries[name].numbers for name in names]
        end = start + sum(sizes) * dtype.itemsize
        flat = _numbers(np.frombuffer(data[start:end], np.uint8), dtype, shuffle)
        for name, part in zip(names, torch.split(flat, sizes), strict=True):
            result[name] = part.reshape(forms.entries[name].shape)
        start = end
    return result


def _numbers(data: Bytes, dtype: torch.dtype, shuffle: bool) -> torch.Tensor:
    """A copy of these bytes as numbers in their order."""
    numbers = np.empty((len(data) // dtype.itemsize, dtype.itemsize), np.uint8)
    if shuffle:
        for place, plane in enumerate(data.reshape(dtype.itemsize, -1)):
            numbers[:, place] = plane  # several times as fast as a copy of the transposed planes
    else:
        numbers.reshape(-1)[:] = data
    flat = torch.from_numpy(numbers.reshape(-1))
    return flat != 0 if dtype == torch.bool else flat.view(dtype)


def _by_dtype(table: Table) -> Iterator[tuple[torch.dtype, list[str]]]:
    """The dtypes of a table in the order of their first tensors, with the names of all."""
    for dtype in dict.fromkeys(entry.dtype for entry in table.entries.values()):
        yield dtype, [name for name, entry in table.entries.items() if entry.dtype == dtype]
