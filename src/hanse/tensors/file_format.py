"""The format of safetensors: a JSON header with the place of each tensor, then the tensors' bytes.

A header is checked as a whole before a tensor is read, so that tensors can be read one by one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanse.tensors.named import Tensors

METADATA = "__metadata__"
ALIGNMENT = 8  # of the first tensor's byte in the file
MOST_DIMENSIONS = 16
MOST_VALUES = 2**48  # of a tensor; dimensions of 0 count as 1
DTYPES = {  # in the order in which safetensors writes tensors
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = {dtype: index for index, dtype in enumerate(DTYPES.values())}


@dataclass(frozen=True)
class Place:
    """The place of a tensor in a file.

    start, stop: the numbers of its first byte, and of the one after its last; 0 follows the header.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def parts(tensors: Tensors, metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The bytes of a file: its header, and those of each tensor; equal to what safetensors writes.

    The memory of contiguous tensors on the CPU is not copied.
    """
    header: dict[str, Any] = {METADATA: metadata}
    data: list[memoryview] = []
    start = 0
    for name in sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name)):
        tensor = tensors[name]
        data.append(_memory(tensor))
        stop = start + data[-1].nbytes
        offsets = {"shape": [*tensor.shape], "data_offsets": [start, stop]}
        header[name] = {"dtype": _NAMES[tensor.dtype], **offsets}
        start = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return [len(text).to_bytes(8, "little") + text, *data]


def places(header: Mapping[str, Any], size: int) -> dict[str, Place]:
    """The place of each tensor by name, sorted by name; raises ValueError.

    header: the parsed header. size: the number of bytes after it, which the tensors must fill.
    """
    result = {name: _place(name, header[name]) for name in sorted(header) if name != METADATA}
    end = 0
    for place in sorted(result.values(), key=lambda place: (place.start, place.stop)):
        if place.start != end:
            raise ValueError("its tensors overlap, or have bytes between them")
        end = place.stop
    if end != size:
        raise ValueError(f"its tensors have {end:,} bytes, and {size:,} came")
    return result


def tensor(place: Place, data: bytearray) -> Tensor:
    """The tensor at a place, whose memory is `data`."""
    if not data:
        return torch.empty(place.shape, dtype=place.dtype)
    return torch.frombuffer(data, dtype=place.dtype).reshape(place.shape)


def _place(name: str, entry: Any) -> Place:
    """The place in an entry of a header; raises ValueError."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]}:
            whole = all(type(n) is int and n >= 0 for n in (*shape, start, stop))
            if dtype in DTYPES and whole and len(shape) <= MOST_DIMENSIONS:
                place = Place(DTYPES[dtype], tuple(shape), start, stop)
                values, room = math.prod(shape), math.prod(max(n, 1) for n in shape)
                if room <= MOST_VALUES and stop - start == values * place.dtype.itemsize:
                    return place
    raise ValueError(f"the entry of the tensor {name!r:.80} is not valid")


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
