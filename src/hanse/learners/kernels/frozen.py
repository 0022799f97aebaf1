"""Products with frozen weights, by the kernel that is fastest here: torch's, or oneDNN's.

Torch multiplies float32 matrices on a processor by MKL, which reaches half the speed of oneDNN on
some of them. In bfloat16 torch uses oneDNN, which rearranges a weight in each product again. A
weight is frozen here, and can be rearranged ("packed") once for each direction.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Linear, Parameter
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.settings import Kernel, Products

SMALLEST = 2**16  # weights of a matrix; the product with a smaller one is torch's
PACKED_FOR = 256  # rows of the inputs; a weight is packed for about as many
OPERATORS = ("_linear_pointwise", "_reorder_linear_weight")  # of torch.ops.mkldnn


def kernels(device: torch.device) -> tuple[Kernel, ...]:
    """The kernels that torch has for products on a device."""
    present = all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and present:
        return ("torch", "onednn", "packed")
    return ("torch",)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> Tensor:
    """(n, out): x·Wᵀ + b, without a gradient.

    x: (n, in), n ≥ 1 for oneDNN. weight: (out, in); for the kernel "packed" it is a result of the
        function `packed`.
    """
    if kernel == "torch":
        return linear(x, weight, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def packed(weight: Tensor) -> Tensor:
    """A weight (out, in) in the order in which oneDNN's product reads it."""
    result: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR)
    return result


class FrozenProduct:
    """The product of a linear layer whose weight is frozen, and its gradient by the inputs.

    layer: torch's Linear, or transformers' Conv1D. Nobody may change its weight in place. If the
    layer gets another weight, its product is with that one.
    """

    def __init__(self, layer: Any, kernel: Kernel) -> None:
        self.layer, self.kernel = layer, kernel
        self._transposed = isinstance(layer, Conv1D)
        self._packed: dict[bool, tuple[Any, Tensor]] = {}  # by `transposed`, of which weight

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenProduct":
        """The product of the layer's copy; an adapter may train the copy, so it is torch's."""
        return FrozenProduct(memo[id(self.layer)], "torch")

    @property
    def weight(self) -> Tensor:
        """The layer's weight as the layer has it: (out, in), or a Conv1D's (in, out)."""
        weight: Tensor = self.layer._parameters["weight"]  # faster than the layer's attribute
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias, (out,), if it has one."""
        bias: Tensor | None = self.layer._parameters["bias"]
        return bias

    @property
    def frozen(self) -> bool:
        """False while the layer's weight or bias gets a gradient."""
        bias = self.bias
        return not (self.weight.requires_grad or (bias is not None and bias.requires_grad))

    def __call__(self, x: Tensor) -> Tensor:
        """(n, out): x·Wᵀ + b of inputs (n, in), without a gradient."""
        return self._product(x, self._transposed, self.bias)

    def gradient(self, outputs: Tensor) -> Tensor:
        """(n, in): the gradient by the inputs, from that by the outputs (n, out)."""
        return self._product(outputs, not self._transposed, None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, out): the layer's outputs for inputs (…, in), in place of its own `forward`."""
        outputs: Tensor
        if not self.frozen:
            outputs = type(self.layer).forward(self.layer, x)
            return outputs
        rows = x.reshape(-1, x.shape[-1]).to(self.weight.dtype)
        outputs = _Product.apply(rows, self) if torch.is_grad_enabled() else self(rows)
        return outputs.view(*x.shape[:-1], outputs.shape[-1])

    def _product(self, x: Tensor, transposed: bool, bias: Tensor | None) -> Tensor:
        """The product with the weight, or with its transpose."""
        if self.kernel == "packed" and len(x):
            return product(x, self._packed_weight(transposed), bias, "packed")
        weight = self.weight.t() if transposed else self.weight
        return product(x, weight, bias, self.kernel if len(x) else "torch")

    def _packed_weight(self, transposed: bool) -> Tensor:
        """The packed weight, or its transpose; packed again if the layer has another weight."""
        weight = self.weight
        identity = weight.data_ptr(), weight._version
        known, copy = self._packed.get(transposed, (None, weight))
        if known != identity:
            copy = packed((weight.t() if transposed else weight).detach())
            self._packed[transposed] = identity, copy
        return copy


class _Product(Function):
    """A frozen product with its gradient; neither inputs nor outputs are kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenProduct) -> Tensor:
        ctx.frozen = frozen
        return frozen(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.frozen.gradient(gradient.contiguous()), None


def of(layer: Any) -> FrozenProduct | None:
    """The product of a plain linear layer; None for other layers, such as quantized ones."""
    forward = getattr(vars(layer).get("forward"), "__self__", None)
    if isinstance(forward, FrozenProduct):
        return forward
    plain = type(layer) in (Linear, Conv1D) and type(layer.weight) in (Tensor, Parameter)
    return FrozenProduct(layer, "torch") if plain else None


def use(model: Any, kernel: Products) -> None:
    """Let the large linear layers of a frozen model compute by this kernel."""
    if kernel in ("onednn", "packed"):
        for frozen in _large(model):
            frozen.layer.forward = FrozenProduct(frozen.layer, kernel).forward


def size(model: Any) -> int:
    """The bytes of the weights that `use` is for; packed ones are kept twice beside them."""
    return sum(frozen.layer.weight.nbytes for frozen in _large(model))


def packed_bytes(model: Any) -> int:
    """The bytes of the packed copies that products have made so far."""
    products = filter(None, map(of, model.modules()))
    return sum(len(product._packed) * product.weight.nbytes for product in products)


def _large(model: Any) -> Iterator[FrozenProduct]:
    """The products of large frozen layers in a transformer's blocks."""
    layers = (layer for block in decoder_layers(model)[1] for layer in block.modules())
    for product_of_layer in filter(None, map(of, layers)):
        weight = product_of_layer.layer.weight
        large = weight.numel() >= SMALLEST and weight.dtype == model.dtype
        if large and product_of_layer.frozen:
            yield product_of_layer
