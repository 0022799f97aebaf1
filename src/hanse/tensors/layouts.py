"""Layouts that are parts of a larger one: what one client trains of what the server holds.

Each tensor of a part is the leading block of the whole's tensor of that name: (4, 64) of (8, 64)
are the first four rows. LoRA's factors of a lower rank are leading blocks of those of a higher one.
Where a layout is needed any tensors will do, and a layout is returned on the meta device.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors.named import RunningMean, Tensors, zeros

MAX_TENSORS, MAX_NAME, MAX_DIMS, MAX_ELEMENTS = 10_000, 300, 8, 2**40
DTYPES = {str(kind): kind for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}


def cut(whole: Tensors, part: Tensors) -> dict[str, Tensor]:
    """Copies of the leading blocks that `part` describes."""
    return {name: _block(whole[name], form).clone() for name, form in part.items()}


def padded(part: Tensors, whole: Tensors) -> dict[str, Tensor]:
    """The tensors of a part in the shapes of the whole, with zeros elsewhere."""
    result = zeros(whole)
    for name, tensor in part.items():
        _block(result[name], tensor).copy_(tensor)
    return result


def over(part: Tensors, whole: Tensors) -> dict[str, Tensor]:
    """Copies of the whole's tensors, with a part's in their leading blocks."""
    result = {name: tensor.clone() for name, tensor in whole.items()}
    for name, tensor in part.items():
        _block(result[name], tensor).copy_(tensor)
    return result


def coverage(part: Tensors, whole: Tensors) -> dict[str, Tensor]:
    """Ones where a part has elements of the whole, and zeros elsewhere."""
    return padded({name: torch.ones(form.shape) for name, form in part.items()}, whole)


def union(parts: Iterable[Tensors]) -> dict[str, Tensor]:
    """The smallest layout that all of these are parts of."""
    result: dict[str, Tensor] = {}
    for part in parts:
        for name, tensor in part.items():
            shape = map(max, tensor.shape, result[name].shape) if name in result else tensor.shape
            result[name] = tensor.new_empty(list(shape), device="meta")
    return result


def mean(parts: Sequence[tuple[float, Tensors]]) -> dict[str, Tensor]:
    """The weighted mean of parts, each element over those that have it; zero where none has it."""
    whole = union(part for _, part in parts)
    sums, weights = RunningMean(), RunningMean()
    for weight, part in parts:
        sums.add(padded(part, whole), weight)
        weights.add(coverage(part, whole), weight)
    shares = weights.value()
    return {
        name: torch.where(shares[name] > 0, tensor / shares[name], 0)
        for name, tensor in sums.value().items()
    }


def refuse_outside(part: Tensors, whole: Tensors) -> None:
    """Raise UserError unless every tensor is a leading block of the whole's tensor of its name."""
    for name, form in part.items():
        if name not in whole:
            raise UserError(
                f"it trains {name}, which is not in the server's adapter; give the server's "
                "adapter all matrices that a client trains."
            )
        largest = whole[name]
        same_kind = form.dim() == largest.dim() and form.dtype == largest.dtype
        if not same_kind or any(map(int.__gt__, form.shape, largest.shape)):
            raise UserError(
                f"it trains {name} as {tuple(form.shape)} {form.dtype}, which is no part of the "
                f"server's {tuple(largest.shape)} {largest.dtype}; give the server's adapter the "
                "largest rank of all clients."
            )


def parse(values: Any) -> dict[str, Tensor]:
    """The layout that `shapes` has turned into plain values; raises ValueError for others.

    The values may come from a stranger: everything is bounded, and no memory is taken for elements.
    """
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_TENSORS:
        raise ValueError(f"a layout lists 1 to {MAX_TENSORS:,} tensors")
    layout = dict(map(_tensor, values))
    if len(layout) < len(values):
        raise ValueError("it lists two tensors of one name")
    if (total := sum(form.numel() for form in layout.values())) > MAX_ELEMENTS:
        raise ValueError(f"it lists {total:,} elements, more than {MAX_ELEMENTS:,}")
    return layout


def _tensor(values: Any) -> tuple[str, Tensor]:
    """The name and the form of one tensor, as [name, sizes, dtype]."""
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError("a tensor is listed as [name, sizes, dtype]")
    name, sizes, dtype = values
    if not isinstance(name, str) or not re.fullmatch(rf"[ -~]{{1,{MAX_NAME}}}", name):
        raise ValueError(f"a tensor's name has 1 to {MAX_NAME} printable characters of ASCII")
    whole = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
    if not whole or len(sizes) > MAX_DIMS or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"{name} has sizes that no tensor has")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} has a dtype other than {', '.join(DTYPES)}")
    return name, torch.empty(sizes, dtype=DTYPES[dtype], device="meta")


def _block(tensor: Tensor, form: Tensor) -> Tensor:
    """The leading block of a tensor, of another tensor's shape."""
    return tensor[tuple(slice(size) for size in form.shape)]
