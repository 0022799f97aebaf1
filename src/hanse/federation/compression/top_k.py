"""Top-k: the largest numbers of an update, and their places."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors import sparse
from hanse.tensors.named import Bounded, Layout, Tensors, drop, varies
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Table, floats, join, required

VALUES, GAPS, COUNTS, TABLE = NAMES = tuple(
    f"top_k.{part}" for part in ("values", "gaps", "counts", "table")
)


@dataclass(frozen=True)
class TopK(Transform):
    """A share of the numbers of an update, the largest by magnitude; all others become zeros.

    A number takes six bytes: four for its value and two for its place. Of equal numbers the first
    ones are sent. Tensors of integers travel as they are. Use error feedback, by which the numbers
    that are left out are sent later (Stich et al. 2018, 1809.07599).

    share: of the numbers of all float tensors together; at least one number is sent.
    per_tensor: the share of each tensor is sent, also of those with small numbers.
    """

    linear: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = "reduce"
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    per_tensor: bool = False

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The values, their places, the table, and tensors of integers."""
        forms = floats(expected)
        table = Table.of(forms)
        count = sum(count for _, count in self._sections(table))
        sizes = {
            VALUES: torch.empty(count, device="meta"),
            GAPS: torch.empty(count, dtype=torch.int16, device="meta"),
            COUNTS: torch.empty(sparse.blocks(table.numbers), dtype=torch.int32, device="meta"),
        }
        added = {name: Bounded(form) if varies(forms) else form for name, form in sizes.items()}
        return join(drop(expected, forms), {**added, TABLE: Table.form(forms)})

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with its largest numbers in place of its float tensors."""
        tensors = floats(update.tensors)
        table = Table.of(tensors)
        flat = table.flatten(tensors)
        places = self._places(table, flat)
        gaps, counts = sparse.to_gaps(places, table.numbers)
        added = {VALUES: flat[places], GAPS: gaps, COUNTS: counts, TABLE: table.to_tensor()}
        return replace(update, tensors=join(drop(update.tensors, tensors), added))

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of the tensors in the table."""
        return Table.read(required(update.tensors, TABLE)).bytes

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with its float tensors, in which all numbers that were not sent are zeros."""
        values, gaps, counts, data = (required(update.tensors, name) for name in NAMES)
        table = Table.read(data)
        if values.shape != gaps.shape or not values.is_floating_point():
            raise MessageError(f"{tuple(gaps.shape)} gaps came with {tuple(values.shape)} values")
        places = sparse.from_gaps(gaps, counts, table.numbers)
        flat = values.new_zeros(table.numbers)
        flat[places] = values
        return replace(update, tensors={**drop(update.tensors, NAMES), **table.split(flat)})

    def _sections(self, table: Table) -> list[tuple[slice, int]]:
        """The sections of the sequence of all numbers, and how many numbers of each are sent."""
        sections = [slice(0, table.numbers)]
        if self.per_tensor:
            sections = [section for _, _, section in table.slices()]
        return [(s, sparse.kept(self.share, s.stop - s.start)) for s in sections]

    def _places(self, table: Table, flat: Tensor) -> Tensor:
        """The places of the numbers that are sent, sorted."""
        parts = [
            sparse.largest_magnitudes(flat[section], count) + section.start
            for section, count in self._sections(table)
        ]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
