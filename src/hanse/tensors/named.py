"""Arithmetic on named tensors, for algorithms and aggregators."""

import hashlib
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hanse.errors import UserError

Value = TypeVar("Value")
Tensors = Mapping[str, Tensor]
BLOCK = 2**16  # values that are worked on at a time


@dataclass(frozen=True)
class Bounded:
    """A tensor of a layout whose first dimension may be smaller.

    largest: its largest shape, and its dtype, on the meta device.
    """

    largest: Tensor


Layout = Mapping[str, Tensor | Bounded]  # names, shapes and dtypes: tensors on the meta device


def blob(most: int) -> Bounded:
    """The layout of at most so many bytes, as a tensor of uint8 with one dimension."""
    return Bounded(torch.empty(most, dtype=torch.uint8, device="meta"))


def from_bytes(data: bytes) -> Tensor:
    """Bytes as a tensor of uint8 with one dimension."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0).byte()


def to_bytes(data: Tensor) -> bytes:
    """The bytes in a tensor of uint8: the inverse of `from_bytes`."""
    return data.cpu().contiguous().numpy().tobytes()


def largest(form: Tensor | Bounded) -> Tensor:
    """The shape and dtype of an entry of a layout; the largest shape of a bounded one."""
    return form.largest if isinstance(form, Bounded) else form


def layout(tensors: Tensors) -> dict[str, Tensor]:
    """Names, shapes and dtypes of `tensors`, without their values."""
    return {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}


def layout_bytes(expected: Layout) -> int:
    """The size in bytes of the largest tensors that a layout allows."""
    forms = (largest(form) for form in expected.values())
    return sum(form.numel() * form.itemsize for form in forms)


def varies(expected: Layout) -> bool:
    """True if a layout has a tensor whose length varies."""
    return any(isinstance(form, Bounded) for form in expected.values())


def fits(tensor: Tensor, form: Tensor | Bounded) -> bool:
    """True if a tensor has the shape and dtype of an entry of a layout."""
    shape, expected = [*tensor.shape], [*largest(form).shape]
    if isinstance(form, Bounded) and shape and shape[0] < expected[0]:
        expected[0] = shape[0]
    return tensor.dtype == largest(form).dtype and shape == expected


def shapes(tensors: Tensors) -> list[tuple[str, list[int], str]]:
    """Names, shapes and dtypes as plain values, sorted by name."""
    return [(name, list(t.shape), str(t.dtype)) for name, t in sorted(tensors.items())]


def zeros(layout: Tensors) -> dict[str, Tensor]:
    """Tensors of zeros with these names, shapes and dtypes, on the CPU."""
    return {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in layout.items()}


def map_tensors(function: Callable[..., Tensor], *groups: Tensors) -> dict[str, Tensor]:
    """The results of `function` name by name; all groups must have the same names."""
    first = groups[0]
    for other in groups[1:]:
        if other.keys() != first.keys():
            different = sorted(first.keys() ^ other.keys())[:3]
            raise KeyError(f"groups of tensors differ in {', '.join(different)}")
    return {name: function(*(group[name] for group in groups)) for name in first}


def add(a: Tensors, b: Tensors) -> dict[str, Tensor]:
    """The sum a + b, name by name."""
    return map_tensors(torch.add, a, b)


def subtract(a: Tensors, b: Tensors) -> dict[str, Tensor]:
    """The difference a - b, name by name."""
    return map_tensors(torch.sub, a, b)


def add_where_present(a: Tensors, by: Tensors) -> dict[str, Tensor]:
    """The tensors of `a` with those of `by` added; all names of `by` must be in `a`."""
    return {**a, **add({name: a[name] for name in by}, by)}


def scale(a: Tensors, factor: float) -> dict[str, Tensor]:
    """The product factor · a, name by name."""
    return {name: tensor * factor for name, tensor in a.items()}


def add_prefix(prefix: str, a: Tensors) -> dict[str, Tensor]:
    """The same tensors with a prefix before each name; several groups can then be sent as one."""
    return {prefix + name: tensor for name, tensor in a.items()}


def strip_prefix(a: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """The tensors or numbers whose names begin with a prefix, which is removed."""
    start = len(prefix)
    return {name[start:]: value for name, value in a.items() if name.startswith(prefix)}


def matching(a: Tensors, patterns: Iterable[str]) -> dict[str, Tensor]:
    """The tensors whose names match any of these regular expressions somewhere."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return {n: t for n, t in a.items() if any(pattern.search(n) for pattern in compiled)}


def drop(a: Mapping[str, Value], names: Container[str]) -> dict[str, Value]:
    """The tensors of `a` whose names are not in `names`."""
    return {name: value for name, value in a.items() if name not in names}


def dot(a: Tensors, b: Tensors) -> Tensor:
    """The scalar product ⟨a, b⟩ over all tensors, differentiable."""
    return torch.stack([(a[name] * b[name]).sum() for name in sorted(a)]).sum()


def all_finite(a: Tensors) -> bool:
    """True if no tensor holds NaN or an infinity."""
    return all(map(is_finite, a.values()))


def is_finite(tensor: Tensor) -> bool:
    """True if a tensor holds neither NaN nor an infinity."""
    return not tensor.is_floating_point() or all(
        bool(torch.isfinite(block).all()) for block in blocks(tensor)
    )


def blocks(tensor: Tensor) -> Sequence[Tensor]:
    """The values of a tensor in blocks of at most 2¹⁶, so that an operation needs little memory.

    They are views of a contiguous tensor.
    """
    return torch.split(tensor.reshape(-1), BLOCK)


def squared_distance(a: Tensors, b: Tensors) -> Tensor:
    """The squared distance ‖a - b‖² over all tensors, differentiable."""
    near = {name: b[name].to(a[name].device) for name in sorted(b)}
    return torch.stack([(a[name] - near[name]).square().sum() for name in near]).sum()


def norm(a: Tensors) -> float:
    """The L2 norm ‖a‖ over all tensors, accumulated in float64."""
    return float(sum(float(tensor.double().square().sum()) for tensor in a.values()) ** 0.5)


def digest(a: Tensors) -> str:
    """The SHA-256 of names and values; a single different bit changes it."""
    sha = hashlib.sha256()
    for name in sorted(a):
        sha.update(name.encode())
        values = a[name].detach().cpu().contiguous().reshape(-1)
        sha.update(values.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def refuse_unlike(mine: Tensors, theirs: Tensors) -> None:
    """Raise UserError unless both have the same names and shapes."""
    if different := sorted(mine.keys() ^ theirs.keys()):
        raise UserError(
            f"the adapters are not of one kind: only one of them has {different[0]}; "
            "give all clients the same adapter and the same base model."
        )
    for name, tensor in mine.items():
        if tensor.shape != theirs[name].shape:
            raise UserError(
                f"the adapters are not of one size: {name} is {tuple(tensor.shape)} here and "
                f"{tuple(theirs[name].shape)} there; give all clients the same rank and base model."
            )


class RunningMean:
    """The weighted mean Σ wₖ·aₖ / Σ wₖ, accumulated in float64 one group at a time.

    Only the running sum is kept, so that memory does not depend on the number of groups; a group is
    read tensor by tensor. The caller adds the groups in a fixed order, since floating-point sums
    depend on it.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self._sum: dict[str, Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._ended = False

    def add(self, tensors: Tensors, weight: float) -> None:
        """Add a group with its weight; its names must be those of the first group."""
        self._refuse_ended()
        self.weight += weight
        if not self._sum:
            for name, tensor in tensors.items():
                self._dtypes[name] = tensor.dtype
                wide = tensor.new_empty(tensor.shape, dtype=torch.float64)  # contiguous, for blocks
                self._sum[name] = wide.copy_(tensor).mul_(weight)
            return
        if tensors.keys() != self._sum.keys():
            raise KeyError("groups of a mean have different names")
        for name, total in self._sum.items():
            own = blocks(tensors[name].expand_as(total))
            for block, other in zip(blocks(total), own, strict=True):
                block.add_(other.double(), alpha=weight)

    def value(self) -> dict[str, Tensor]:
        """The mean in the dtypes of the first group; the sum is given up for it, so it ends here.

        Each tensor of the sum is freed when its mean is there. Raises RuntimeError if called again.
        """
        if not self.weight > 0:
            raise ZeroDivisionError("a mean needs a positive total weight")
        self._refuse_ended()
        self._ended = True
        return {
            name: self._sum.pop(name).div_(self.weight).to(self._dtypes[name])
            for name in [*self._sum]
        }

    def _refuse_ended(self) -> None:
        if self._ended:
            raise RuntimeError("this mean has been taken, and its sum was given up for it")
