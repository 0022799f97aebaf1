"""Float tensors as bfloat16: half of the bytes, eight bits of precision."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.interfaces.declarations import Step
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, Tensors, map_tensors


@dataclass(frozen=True)
class BF16(Transform):
    """Float tensors travel as bfloat16, rounded to nearest even, and arrive as float32.

    Tensors of integers, and of floats with two bytes or fewer, travel as they are. A rule that sees
    sums only adds float64, so nothing would travel as bfloat16 there: the codec is for other rules.
    """

    linear: ClassVar[bool] = False
    step: ClassVar[Step | None] = "round"
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors", "logits", "scalars", "model")

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The same names and shapes, with two bytes for each float."""
        return {
            name: Bounded(_rounded(form.largest)) if isinstance(form, Bounded) else _rounded(form)
            for name, form in expected.items()
        }

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with rounded tensors."""
        return replace(update, tensors=map_tensors(_rounded, update.tensors))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with float32 tensors again."""
        return replace(update, tensors=map_tensors(_widened, update.tensors))


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() and tensor.itemsize > 2 else tensor


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
