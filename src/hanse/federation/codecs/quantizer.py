"""The common half of codecs with codes of few bits and one scale for each block of numbers."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hanse.federation.interfaces.declarations import PAYLOADS, Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.blockwise import Blocks
from hanse.tensors.named import Bounded, Layout, Tensors, drop, varies
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Form, Table, floats, join, required

# Numbers of a block: whole bytes of codes, and few zeros to fill up a tensor of one number.
Block = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
Rounding = Literal["nearest", "stochastic"]


class Quantizer(Transform):
    """A codec that sends all float tensors as one tensor of codes, one of scales and one table.

    n numbers in blocks of b take n·bits/8 + 4·⌈n/b⌉ bytes, rounded up in each tensor. Tensors of
    integers travel as they are.

    A block with a number that is not finite decodes to numbers that are not finite, and so does a
    code that nothing encodes to: the receiver refuses both.
    """

    linear: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = "quantize"
    payloads: ClassVar[tuple[str, ...]] = PAYLOADS
    bits: ClassVar[int]  # of a code
    block: int
    rounding: Rounding = "nearest"

    @property
    @abstractmethod
    def levels(self) -> Tensor:
        """The value of each code ÷ its block's scale: (2^bits,), NaN for codes without a value."""

    @abstractmethod
    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The codes (R, block) uint8 and scales (R,) of blocks (R, block).

        lengths: the numbers of each block (R,); zeros follow them.
        draws: for stochastic rounding.
        """

    @property
    def contractive(self) -> bool:
        """False for stochastic rounding in long blocks.

        With 0 among the levels and g the distance to the next one, a number x·scale within g of 0
        costs x(g - x) on average, at most g²/8 more than its own x². The largest number of a block
        costs nothing and has 1.
        """
        if self.rounding == "nearest":
            return True
        levels = self.levels
        distance = max(float(levels[levels > 0].min()), -float(levels[levels < 0].max()))
        return (self.block - 1) * distance**2 / 8 < 1

    @property
    def names(self) -> tuple[str, str, str]:
        """The names of codes, scales and table in a message."""
        codec = type(self).__name__.lower()
        return f"{codec}.codes", f"{codec}.scales", f"{codec}.table"

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """Tensors of integers, and codes, scales and table of all others."""
        forms = floats(expected)
        code_bytes, count = self._sizes(Table.of(forms))
        codes = torch.empty(code_bytes, dtype=torch.uint8, device="meta")
        scales = torch.empty(count, device="meta")
        sizes = [Bounded(codes), Bounded(scales)] if varies(forms) else [codes, scales]
        return self._beside(drop(expected, forms), [*sizes, Table.form(forms)])

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with codes, scales and table."""
        tensors = floats(update.tensors)
        draws = context.generator(self.names[0]) if self.rounding == "stochastic" else None
        codes, scales = self._blocks.encode(
            list(tensors.values()), lambda rows, lengths: self.quantize(rows, lengths, draws)
        )
        parts = [codes, scales, Table.of(tensors).to_tensor()]
        return replace(update, tensors=self._beside(drop(update.tensors, tensors), parts))

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The size of the tensors in the table."""
        return self._parts(update)[2].bytes

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with tensors of the table's dtypes and shapes."""
        codes, scales, table = self._parts(update)
        others = drop(update.tensors, self.names)
        if twice := sorted(others.keys() & table.entries.keys()):
            raise MessageError(f"{twice[0]!r:.80} came twice, once in {self.names[2]}")
        results = {n: torch.empty(e.shape, dtype=e.dtype) for n, e in table.entries.items()}
        self._blocks.decode(codes, scales, self.levels, list(results.values()))
        return replace(update, tensors={**others, **results})

    @property
    def _blocks(self) -> Blocks:
        return Blocks(self.block, self.bits)

    def _sizes(self, table: Table) -> tuple[int, int]:
        """The numbers of codes' bytes and of scales."""
        counts = [entry.numbers for entry in table.entries.values()]
        return self._blocks.code_bytes(counts), self._blocks.count(counts)

    def _beside(self, others: Mapping[str, Form], parts: Iterable[Form]) -> dict[str, Form]:
        """Other entries with codes, scales and table beside them."""
        return join(others, dict(zip(self.names, parts, strict=True)))

    def _parts(self, update: Update) -> tuple[Tensor, Tensor, Table]:
        """Codes, scales and table of a message; raises MessageError if they do not fit together."""
        codes, scales, data = (required(update.tensors, name) for name in self.names)
        table = Table.read(data)
        code_bytes, count = self._sizes(table)
        for part, size, dtype in (codes, code_bytes, torch.uint8), (scales, count, torch.float32):
            if part.shape != (size,) or part.dtype != dtype:
                raise MessageError(
                    f"{tuple(part.shape)} {part.dtype} came where {self.names[2]} needs {size} "
                    f"{dtype}"
                )
        return codes, scales, table
