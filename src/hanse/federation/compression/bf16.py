"""Float tensors as bfloat16: half of the bytes, eight bits of precision."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.half_precision import narrowed, narrowed_layout, widened
from hanse.tensors.lazy import map_each
from hanse.tensors.named import Layout, Tensors, map_tensors

FORMAT = torch.bfloat16


@dataclass(frozen=True)
class BF16(Transform):
    """Float tensors travel as bfloat16, rounded to nearest even, and arrive as float32.

    Tensors of integers, and of floats with two bytes or fewer, travel as they are. A rule that sees
    sums only adds float64, so nothing would travel as bfloat16 there: the codec is for other rules.
    """

    linear: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = "quantize"
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors", "logits", "scalars", "model")

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The same names and shapes, with two bytes for each float."""
        return narrowed_layout(expected, FORMAT)

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with rounded tensors."""
        return replace(update, tensors=map_tensors(partial(narrowed, dtype=FORMAT), update.tensors))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with float32 tensors again."""
        return replace(update, tensors=map_each(partial(widened, dtype=FORMAT), update.tensors))
