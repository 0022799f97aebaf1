"""Eight bits for each number: the nearest of 255 equal steps, with one scale for each block."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.codecs.quantizer import Block, Quantizer, Rounding
from hanse.tensors.blockwise import even_codes, even_levels


@dataclass(frozen=True)
class Int8(Quantizer):
    """Eight bits a number: whole numbers from -127 to 127, times absmax/127 of its block.

    The error is at most absmax/254, and at most absmax/127 with stochastic rounding, whose mean
    over draws is exact.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 8

    block: Block = 256
    rounding: Rounding = "nearest"

    @property
    def levels(self) -> Tensor:
        """-127/127 to 127/127."""
        return even_levels(self.bits)

    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Rounded codes, and the absmax of each block."""
        return even_codes(rows, self.bits, draws)
