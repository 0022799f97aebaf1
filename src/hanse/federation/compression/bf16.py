"""Float tensors as bfloat16: half of the bytes, eight bits of precision."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.federation.codecs.half_precision import HalfPrecision


@dataclass(frozen=True)
class BF16(HalfPrecision):
    """Float tensors travel as bfloat16, rounded to nearest even, and arrive in their own dtype.

    Tensors of integers, and of floats with two bytes or fewer, travel as they are. A rule that sees
    sums only adds float64, so nothing would travel as bfloat16 there: the codec is for other rules.
    """

    linear: ClassVar[bool] = False
    format: ClassVar[torch.dtype] = torch.bfloat16
