"""Float tensors as float16: half of the bytes, eleven bits of precision, sizes up to 65,504."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.errors import UserError
from hanse.federation.codecs.half_precision import HalfPrecision
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors


@dataclass(frozen=True)
class FP16(HalfPrecision):
    """Float tensors travel as float16, rounded to nearest even, and arrive in their own dtype.

    The error is at most x/2048, or 3e-8 for numbers below 6e-5. Tensors of integers, and of floats
    with two bytes or fewer, travel as they are.
    """

    linear: ClassVar[bool] = False
    format: ClassVar[torch.dtype] = torch.float16

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with rounded tensors; raises UserError for numbers that float16 has not."""
        encoded = super().encode(update, memory, state, context)
        for name, tensor in update.tensors.items():
            if bool(tensor[encoded.tensors[name].isinf()].isfinite().any()):
                raise UserError(
                    f"fp16 has numbers up to 65,504, and {name} has larger ones; choose bf16 or "
                    "int8 in its place."
                )
        return encoded
