"""Four bits for each number: the nearest of 15 equal steps, with one scale for each block."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.codecs.quantizer import Block, Quantizer, Rounding
from hanse.tensors.blockwise import even_codes, even_levels


@dataclass(frozen=True)
class Int4(Quantizer):
    """Four bits a number: whole numbers from -7 to 7, times absmax/7 of its block.

    The error is at most absmax/14, and at most absmax/7 with stochastic rounding, whose mean over
    draws is exact.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 4

    block: Block = 64
    rounding: Rounding = "nearest"

    @property
    def contractive(self) -> bool:
        """False for stochastic rounding in long blocks.

        A number of x steps costs (x - ⌊x⌋)(⌈x⌉ - x) on average, at most 1/8 more than its own x².
        The largest number of a block costs nothing and has 49.
        """
        return self.rounding == "nearest" or (self.block - 1) / 8 < 49

    @property
    def levels(self) -> Tensor:
        """-7/7 to 7/7."""
        return even_levels(self.bits)

    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Rounded codes, and the absmax of each block."""
        return even_codes(rows, self.bits, draws)
