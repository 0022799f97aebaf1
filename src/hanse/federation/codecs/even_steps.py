"""The common half of quantizers with equal steps between the values of their codes."""

import torch
from torch import Tensor

from hanse.federation.codecs.quantizer import Quantizer
from hanse.tensors.blockwise import even_codes, even_levels


class EvenSteps(Quantizer):
    """A quantizer to whole numbers from -L to L, times absmax/L of a block; L = 2^(bits-1) - 1.

    The error is at most absmax/(2L), and at most absmax/L with stochastic rounding, whose mean over
    draws is exact.
    """

    @property
    def levels(self) -> Tensor:
        """-L/L to L/L, in the order of their codes (2^bits,)."""
        return even_levels(self.bits)

    def quantize(
        self, rows: Tensor, lengths: Tensor, draws: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Rounded codes, and the absmax of each block."""
        return even_codes(rows, self.bits, draws)
