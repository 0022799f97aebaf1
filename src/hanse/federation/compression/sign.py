"""One bit for each number: its sign, times the mean absolute number of its block."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.codecs.quantizer import Block, Quantizer


@dataclass(frozen=True)
class Sign(Quantizer):
    """One bit a number: its sign, times mean |x| of its block; use it with error feedback.

    Karimireddy et al. 2019 (1901.09847), section 4: sign(x)·‖x‖₁/n. The sign of 0 is +, so that a
    zero beside other numbers becomes their mean.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 1

    block: Block = 256

    @property
    def levels(self) -> Tensor:
        """Minus and plus one."""
        return torch.tensor([-1.0, 1.0])

    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """1 for numbers that are not negative, and the mean absolute number of each block."""
        sums = rows.abs().sum(dim=1, dtype=torch.float64)  # 256 numbers of 1e38 are too much
        return (rows >= 0).to(torch.uint8), (sums / lengths).float()
