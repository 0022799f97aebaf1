"""Float tensors as float16: half of the bytes, eleven bits of precision, sizes up to 65,504."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.half_precision import narrowed, narrowed_layout, widened
from hanse.tensors.lazy import map_each
from hanse.tensors.named import Layout, Tensors, map_tensors

FORMAT = torch.float16


@dataclass(frozen=True)
class FP16(Transform):
    """Float tensors travel as float16, rounded to nearest even, and arrive as float32.

    The error is at most x/2048, or 3e-8 for numbers below 6e-5. Tensors of integers, and of floats
    with two bytes or fewer, travel as they are.
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
        """The update with rounded tensors; raises UserError for numbers that float16 has not."""
        tensors = map_tensors(partial(narrowed, dtype=FORMAT), update.tensors)
        for name, tensor in update.tensors.items():
            if bool(tensor[tensors[name].isinf()].isfinite().any()):
                raise UserError(
                    f"fp16 has numbers up to 65,504, and {name} has larger ones; choose bf16 or "
                    "int8 in its place."
                )
        return replace(update, tensors=tensors)

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with float32 tensors again."""
        return replace(update, tensors=map_each(partial(widened, dtype=FORMAT), update.tensors))
