"""A table of tensors: their names, dtypes and shapes beside one sequence of all their numbers.

Codecs that send many tensors as one use it. A message then has one entry instead of hundreds, whose
names and places take about 110 bytes each.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors import json_text
from hanse.tensors.named import (
    Bounded,
    Layout,
    Tensors,
    blob,
    from_bytes,
    largest,
    to_bytes,
    varies,
)
from hanse.tensors.serialization import MessageError

MOST_BYTES = 2 * 2**20  # of a table, of some 20,000 tensors; parsing it takes up to 64 MB
LONGEST_NAME = 1000
MOST_DIMENSIONS = 16
LARGEST_DIMENSION = 2**40
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
DTYPES = {
    **FLOATS,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}

Form = TypeVar("Form", bound=Tensor | Bounded)


@dataclass(frozen=True)
class Entry:
    """A tensor's dtype and shape, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """The number of its numbers."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Table:
    """The entries of tensors by name, in the order of their numbers."""

    entries: Mapping[str, Entry]

    @staticmethod
    def of(tensors: Layout) -> "Table":
        """The table of tensors, or of the largest tensors that a layout allows."""
        forms = {name: largest(form) for name, form in tensors.items()}
        return Table({name: Entry(form.dtype, tuple(form.shape)) for name, form in forms.items()})

    @staticmethod
    def form(expected: Layout) -> Tensor | Bounded:
        """The layout of the table that tensors of this layout have as bytes.

        Raises UserError for tensors whose table no receiver would read.
        """
        size = len(Table.of(expected).to_tensor())
        if size > MOST_BYTES:
            raise UserError(
                f"the names and shapes of the {len(expected):,} tensors of an update take {size:,} "
                f"bytes, and a codec sends at most {MOST_BYTES:,}; train fewer matrices, or leave "
                "the codec out of compression."
            )
        if varies(expected):
            return blob(size)
        return torch.empty(size, dtype=torch.uint8, device="meta")

    @staticmethod
    def read(data: Tensor, dtypes: Mapping[str, torch.dtype] = FLOATS) -> "Table":
        """The table in a tensor of bytes; raises MessageError for anything else.

        dtypes: those that its tensors may have, by their codes.

        Nothing is allocated for its tensors; `bytes` says how much they would take.
        """
        if data.dtype != torch.uint8 or data.dim() != 1 or len(data) > MOST_BYTES:
            raise MessageError("a table of tensors is one tensor of bytes")
        try:
            rows = json_text.parse(to_bytes(data))
        except json_text.JsonError as error:
            raise MessageError(f"this table of tensors cannot be read: {error}") from None
        if not isinstance(rows, list) or not all(_is_row(row, dtypes) for row in rows):
            raise MessageError("this table of tensors has an entry that is none")
        entries = {name: Entry(DTYPES[dtype], tuple(shape)) for name, dtype, shape in rows}
        if len(entries) < len(rows):
            raise MessageError("this table of tensors has one name twice")
        return Table(entries)

    def to_tensor(self) -> Tensor:
        """The table as a tensor of bytes: the inverse of `read`."""
        rows = [[name, CODES[e.dtype], list(e.shape)] for name, e in self.entries.items()]
        return from_bytes(json.dumps(rows, separators=(",", ":")).encode())

    @property
    def numbers(self) -> int:
        """The number of numbers in all tensors."""
        return sum(entry.numbers for entry in self.entries.values())

    @property
    def bytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(entry.numbers * entry.dtype.itemsize for entry in self.entries.values())

    def slices(self) -> Iterator[tuple[str, Entry, slice]]:
        """Each tensor's name, entry and place in the sequence of all numbers."""
        ends = [0, *accumulate(entry.numbers for entry in self.entries.values())]
        for (name, entry), (start, end) in zip(self.entries.items(), pairwise(ends), strict=True):
            yield name, entry, slice(start, end)

    def flatten(self, tensors: Tensors) -> Tensor:
        """All numbers of these float tensors one after another, as float32."""
        parts = [tensors[name].reshape(-1).float() for name in self.entries]
        return torch.cat(parts) if parts else torch.empty(0)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors with these numbers; raises MessageError unless their number fits."""
        if flat.shape != (self.numbers,):
            raise MessageError(f"a table of {self.numbers} numbers came with {tuple(flat.shape)}")
        return {
            name: flat[place].to(entry.dtype).reshape(entry.shape)
            for name, entry, place in self.slices()
        }


def floats(tensors: Mapping[str, Form]) -> dict[str, Form]:
    """The entries of floating point, which lossy codecs encode."""
    return {name: form for name, form in tensors.items() if largest(form).is_floating_point()}


def join(passing: Mapping[str, Form], added: Mapping[str, Form]) -> dict[str, Form]:
    """Both groups as one; raises UserError for a name that both have."""
    if clash := sorted(passing.keys() & added.keys()):
        raise UserError(
            f"a codec adds {clash[0]} to an update that already has it; give no tensor of your own "
            "this name, and name the codec once."
        )
    return {**passing, **added}


def required(tensors: Tensors, name: str) -> Tensor:
    """The tensor of that name; raises MessageError unless it is there."""
    if name not in tensors:
        raise MessageError(f"{name} is missing")
    return tensors[name]


def _is_row(row: object, dtypes: Mapping[str, torch.dtype]) -> bool:
    """True if a row of a table is a name, a dtype and a shape."""
    if not isinstance(row, list) or len(row) != 3:
        return False
    name, dtype, shape = row
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return False
    if not isinstance(dtype, str) or dtype not in dtypes:
        return False
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        return False
    return all(type(side) is int and 0 <= side <= LARGEST_DIMENSION for side in shape)
