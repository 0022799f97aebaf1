"""Tensors as bytes for a lossless codec: the bytes of equal significance stand together.

The first byte of a float32 holds its sign and most of its exponent, and differs little from number
to number; the last byte of its mantissa is noise. Codecs compress each such plane of bytes better
than numbers one after another. The tensors of one dtype share their planes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.tensors.named import Tensors, from_bytes, to_bytes
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import DTYPES, Table

Bytes = NDArray[np.uint8]


def pack(tensors: Tensors, shuffle: bool) -> tuple[int, Bytes]:
    """The bytes of a table of tensors and of all tensors, and how many of them are the table's.

    shuffle: whether bytes of the tensors stand by significance.
    """
    table = Table.of(tensors)
    head = to_bytes(table.to_tensor())
    content = np.empty(len(head) + table.bytes, np.uint8)
    content[: len(head)] = np.frombuffer(head, np.uint8)
    for names, section in _sections(table, content[len(head) :], shuffle):
        start = 0
        for name in names:
            numbers = _bytes(tensors[name])
            section[start : start + len(numbers)] = numbers
            start += len(numbers)
    return len(head), content


def unpack(content: memoryview, table_size: int, shuffle: bool) -> dict[str, Tensor]:
    """The tensors of `pack`; raises MessageError for a table that does not fit the bytes."""
    table = Table.read(from_bytes(bytes(content[:table_size])), DTYPES)
    data = np.frombuffer(content[table_size:], np.uint8)
    if table.bytes != len(data):
        raise MessageError(f"a table of {table.bytes:,} bytes came with {len(data):,}")
    result = {}
    for names, section in _sections(table, data, shuffle):
        start = 0
        for name in names:
            entry = table.entries[name]
            numbers = np.empty((entry.numbers, entry.dtype.itemsize), np.uint8)
            for place in range(entry.dtype.itemsize):  # faster than all of them at once
                numbers[:, place] = section[start : start + entry.numbers, place]
            start += entry.numbers
            flat = torch.from_numpy(numbers.reshape(-1))
            flat = flat != 0 if entry.dtype == torch.bool else flat.view(entry.dtype)
            result[name] = flat.reshape(entry.shape)
    return result


def _bytes(tensor: Tensor) -> Bytes:
    """The bytes of a tensor's numbers, (numbers, bytes of one)."""
    flat = tensor.detach().cpu().reshape(-1)
    return flat.view(torch.uint8).numpy().reshape(-1, tensor.itemsize)


def _sections(table: Table, data: Bytes, shuffle: bool) -> Iterator[tuple[list[str], Bytes]]:
    """The tensors of each dtype by name, and a view of their bytes (numbers, bytes of one)."""
    start = 0
    for dtype in dict.fromkeys(entry.dtype for entry in table.entries.values()):
        names = [name for name, entry in table.entries.items() if entry.dtype == dtype]
        end = start + sum(table.entries[name].numbers for name in names) * dtype.itemsize
        section = data[start:end]
        width = dtype.itemsize
        yield names, section.reshape(width, -1).T if shuffle else section.reshape(-1, width)
        start = end
