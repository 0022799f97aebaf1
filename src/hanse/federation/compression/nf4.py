"""Four bits for each number: QLoRA's sixteen levels, which lie as normal numbers do."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.codecs.quantizer import Block, Quantizer, Rounding
from hanse.tensors.blockwise import relative
from hanse.tensors.uneven_levels import NF4_LEVELS, UnevenLevels


@dataclass(frozen=True)
class NF4(Quantizer):
    """Four bits a number: the sixteen levels of QLoRA's NF4, times the absmax of its block.

    The error is at most 0.152·absmax, half of the largest distance between two levels, and less
    near 0. With stochastic rounding it is at most 0.304·absmax, and its mean over draws is 0.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 4

    block: Block = 64
    rounding: Rounding = "nearest"

    @property
    def levels(self) -> Tensor:
        """The quantiles of a normal distribution, with 0, -1 and 1 among them."""
        return NF4_LEVELS

    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The indices of levels, and the absmax of each block."""
        numbers, scales = relative(rows)
        return UnevenLevels(NF4_LEVELS).codes(numbers, draws), scales
