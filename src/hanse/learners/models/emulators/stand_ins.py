"""Modules in place of the linear layers of an emulator's middle, which take less memory.

Adapters are put into ordinary linear layers alone, and never into these. `weight` is there since
transformers' models ask each of their layers for it when they are loaded.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Module, Parameter
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from hanse.tensors.blockwise import pack, relative
from hanse.tensors.uneven_levels import NF4_LEVELS, UnevenLevels

BLOCK = 64  # numbers with one scale, in nf4


def matrix(layer: Any) -> Tensor:
    """The matrix W (out, in) of a linear layer y = Wx + b."""
    weight: Tensor = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight


def with_matrix(layer: Any, weight: Tensor) -> Any:
    """The layer itself, with another matrix (out, in)."""
    weight = weight.T if isinstance(layer, Conv1D) else weight
    layer.weight = Parameter(weight.contiguous(), requires_grad=False)
    return layer


class FactoredLinear(Module):
    """y = U·D·x + b. up: U (out, k); down: D (k, in); bias: (out,), or None."""

    def __init__(self, up: Tensor, down: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.up, self.down = Parameter(up, False), Parameter(down, False)
        self.bias = None if bias is None else Parameter(bias.detach(), False)

    @classmethod
    def hollow(cls, layer: Any, rank: int) -> "FactoredLinear":
        """One of this rank in place of a layer, with tensors like the layer's, without values."""
        rows, columns = matrix(layer).shape
        up, down = (layer.weight.detach().new_empty(s) for s in ((rows, rank), (rank, columns)))
        return cls(up, down, layer.bias)

    @property
    def weight(self) -> Parameter:
        """One of its tensors."""
        return self.up

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.down), self.up, self.bias)


class CodedLinear(Module):
    """y = Wx + b with W as codes of few bits; W is decoded in each pass, and is not kept.

    codes: int8: (out, in); nf4: (⌈out·in/64⌉, 32) bytes, each with the codes of two numbers.
    scales: (out,), or one for each 64 numbers, in the precision of the other weights of a folder.
    W is decoded in float32. bias: (out,), or None.
    """

    def __init__(
        self, shape: tuple[int, int], codes: Tensor, scales: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.shape = shape
        self.codes, self.scales = Parameter(codes, False), Parameter(scales, False)
        self.bias = None if bias is None else Parameter(bias.detach(), False)
        self.mark()

    def mark(self) -> None:
        """Let `quantization.count` count the numbers of W, also after tensors were loaded."""
        self.codes.numbers = self.shape[0] * self.shape[1]  # type: ignore[attr-defined]
        self.scales.numbers = 0  # type: ignore[attr-defined]

    @classmethod
    def of(cls, layer: Any, bits: str) -> "CodedLinear":
        """A layer with its matrix as codes of int8 or nf4."""
        weight = matrix(layer).float()
        rows, columns = weight.shape
        if bits == "int8":
            numbers, scales = relative(weight)
            codes = (numbers * 127).round_().to(torch.int8)
        else:
            blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK))
            numbers, scales = relative(blocks.view(-1, BLOCK))
            codes = pack(UnevenLevels(NF4_LEVELS).codes(numbers), 4)
        return cls((rows, columns), codes, scales, layer.bias)

    @classmethod
    def hollow(cls, layer: Any, bits: str) -> "CodedLinear":
        """One in place of a layer, without values."""
        rows, columns = matrix(layer).shape
        blocks, device = -(-rows * columns // BLOCK), layer.weight.device
        if bits == "int8":
            codes = torch.empty((rows, columns), dtype=torch.int8, device=device)
        else:
            codes = torch.empty((blocks, BLOCK // 2), dtype=torch.uint8, device=device)
        sides = rows if bits == "int8" else blocks
        scales = torch.empty(sides, dtype=torch.float32, device=device)
        return cls((rows, columns), codes, scales, layer.bias)

    @property
    def weight(self) -> Parameter:
        """One of its tensors."""
        return self.codes

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in)."""
        scales = self.scales.float()[:, None]
        if self.codes.dtype == torch.int8:
            return (self.codes * (scales / 127)).to(dtype)
        table = _byte_levels(self.codes.device)
        values = table[self.codes.int()].view(-1, BLOCK) * scales
        rows, columns = self.shape
        return values.flatten()[: rows * columns].view(rows, columns).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _CodedProduct.apply(x, self)
        return output if self.bias is None else output + self.bias.to(output.dtype)


def _byte_levels(device: torch.device) -> Tensor:
    """(256, 2): the two numbers of each byte, the first of them in its lower bits."""
    byte = torch.arange(256, device=device)
    return NF4_LEVELS.to(device)[torch.stack([byte & 15, byte >> 4], dim=1)]


class _CodedProduct(Function):
    """Wx of a `CodedLinear`; the backward pass decodes W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: CodedLinear) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.decoded(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.decoded(gradient.dtype), None
