"""A lossy codec whose messages vary in length, on both ways: rounded values, deflated."""

import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, blob, from_bytes, largest, to_bytes
from hanse.tensors.serialization import MessageError

BYTES = 4  # of a rounded value before it is deflated


@dataclass(frozen=True)
class Squeezed(Transform):
    """All values as multiples of `grid`, deflated into one blob of at most their own size.

    The decoder knows the layout from the server's state, which travels with every request.
    """

    linear: ClassVar[bool] = False
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors", "model")
    grid: float = 0.01

    def init(self, expected: Layout) -> Tensors:
        return {name: torch.tensor(largest(form).shape) for name, form in expected.items()}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        values = sum(largest(form).numel() for form in expected.values())
        return {"deflated": blob(BYTES * values + 1024)}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        values = torch.cat([update.tensors[name].flatten() for name in sorted(state)])
        rounded = (values / self.grid).round().int()
        deflated = zlib.compress(to_bytes(rounded))
        return replace(update, tensors={"deflated": from_bytes(deflated)})

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        sizes = [int(state[name].prod()) for name in sorted(state)]
        most = BYTES * sum(sizes)
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(to_bytes(update.tensors["deflated"]), most + 1)
        except zlib.error as error:
            raise MessageError(f"the blob cannot be inflated: {error}") from None
        if len(data) != most or not inflate.eof:
            raise MessageError(f"the blob does not inflate to {most} bytes")
        parts = (torch.frombuffer(bytearray(data), dtype=torch.int32) * self.grid).split(sizes)
        shapes = [state[name].tolist() for name in sorted(state)]
        pairs = zip(sorted(state), parts, shapes, strict=True)
        return replace(update, tensors={name: part.view(shape) for name, part, shape in pairs})
