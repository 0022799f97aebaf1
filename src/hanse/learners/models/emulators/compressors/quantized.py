"""A middle whose matrices have 8 or 4 bits a number."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hanse.lazy_imports import lazy_imports
from hanse.learners.models.emulators.compressor import Compressor

with lazy_imports():
    from hanse.learners.models.emulators import stand_ins
if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Quantized(Compressor):
    """All layers of the middle are kept, and each number of a matrix is rounded to a few levels.

    bits: int8: 255 equal steps, a scale for each row of a matrix; nf4: QLoRA's sixteen levels
        (Dettmers et al. 2023, 2305.14314), a scale for each 64 numbers.
    Norms and biases are kept as they are. No other package is needed.
    """

    trains: ClassVar[bool] = False
    discloses: ClassVar[str] = (
        "all of the model's matrices, rounded to few bits and nearly the same"
    )

    bits: Literal["int8", "nf4"] = "int8"

    def kept(self, layers: int) -> list[int]:
        return list(range(layers))

    def compressed(self, layer: Any) -> "tuple[Module, int]":
        return stand_ins.CodedLinear.of(layer, self.bits), 8 if self.bits == "int8" else 4

    def hollow(self, layer: Any, size: int) -> "Module":
        return stand_ins.CodedLinear.hollow(layer, self.bits)
