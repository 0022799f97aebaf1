"""A middle whose matrices are products of low rank, by truncated singular value decomposition."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hanse.lazy_imports import lazy_imports
from hanse.learners.models.emulators.compressor import Compressor

with lazy_imports():
    import torch

    from hanse.learners.models.emulators import stand_ins
if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class LowRank(Compressor):
    """All layers of the middle are kept, and each matrix by its largest singular values alone.

    energy: the share of the sum of squared singular values that is kept, at least: the rank k is
        the smallest with Σᵢ₌₁ᵏ σᵢ² ≥ energy·Σσᵢ².
    Norms and biases are kept as they are. Where two factors would be larger than the matrix, it is
    stored as their product.
    """

    discloses: ClassVar[str] = "all of the model's matrices without their smallest singular values"

    energy: Annotated[float, Field(gt=0, lt=1)] = 0.8

    def kept(self, layers: int) -> list[int]:
        return list(range(layers))

    def compressed(self, layer: Any) -> "tuple[Module, int]":
        weight = stand_ins.matrix(layer)
        up, down = truncated(weight.float(), self.energy)
        up, down = up.to(weight.dtype), down.to(weight.dtype)
        if up.numel() + down.numel() >= weight.numel():
            return stand_ins.with_matrix(layer, up @ down), 0
        return stand_ins.FactoredLinear(up, down, layer.bias), len(down)

    def hollow(self, layer: Any, size: int) -> "Module":
        return stand_ins.FactoredLinear.hollow(layer, size)


def truncated(weight: "Tensor", energy: float) -> "tuple[Tensor, Tensor]":
    """The factors up (m, k) and down (k, n) of a matrix (m, n), of the smallest k; at least 1.

    energy: the least share of the sum of its squared singular values that the product has.
    """
    u, values, v = torch.linalg.svd(weight, full_matrices=False)
    energies = values.double().square().cumsum(0)
    rank = int((energies < energy * energies[-1]).sum()) + 1
    root = values[:rank].sqrt()
    return (u[:, :rank] * root).contiguous(), (root[:, None] * v[:rank]).contiguous()
