"""LoRA as one operation: y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ (Hu et al. 2021, 2106.09685).

The frozen product, A, B, scaling and sum are one function of autograd, for one client or many. The
scaling is applied to the r columns of x·Aᵀ, sums go into the outputs of the frozen product, and
only x and x·Aᵀ are kept for the backward pass. A and B of one client are (r, in) and (out, r),
those of K clients (K, r, in) and (K, out, r). The rows of the inputs belong to the clients in equal
shares, in order.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Module

from hanse.learners.injection.target_modules import is_linear
from hanse.learners.kernels import frozen
from hanse.learners.kernels.frozen import FrozenProduct

Scaling = float | Tensor  # s of one client, or of each, (K, 1, 1)


def use(modules: Iterable[Module]) -> None:
    """Let PEFT's LoRA layers among these modules compute LoRA as one operation where they can.

    A layer with several active adapters, or with a variant such as DoRA, computes as PEFT does.
    """
    for layer in modules:
        # A wrapped parameter is no layer with an input.
        wrapped = isinstance(layer, ParamWrapper)
        if isinstance(layer, LoraLayer) and not wrapped and is_linear(layer.get_base_layer()):
            layer.forward = partial(_forward, layer)


@contextmanager
def by_modules(modules: Iterable[Module]) -> Iterator[None]:
    """Within this context, LoRA layers among these modules call A and B as PEFT does.

    Hooks on A and B see their inputs and outputs only then.
    """
    calls = [(layer, vars(layer).get("forward")) for layer in modules]
    fused = [(layer, call) for layer, call in calls if getattr(call, "func", None) is _forward]
    for layer, _ in fused:
        del layer.forward
    try:
        yield
    finally:
        for layer, call in fused:
            layer.forward = call  # type: ignore[assignment]


def _forward(layer: Any, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """The forward pass of one of PEFT's layers."""
    adapters = [name for name in layer.active_adapters if name in layer.lora_A]
    off = layer.disable_adapters or layer.merged or args or named
    if off or len(adapters) != 1 or not _usual(layer, adapters[0]):
        outputs: Tensor = type(layer).forward(layer, x, *args, **named)
        return outputs
    [name] = adapters
    dropout = layer.lora_dropout[name]
    dropped = dropout(x) if dropout.training and getattr(dropout, "p", 0.0) else None
    factors = layer.lora_A[name].weight, layer.lora_B[name].weight
    return apply(layer.base_layer, x, dropped, *factors, layer.scaling[name])


def _usual(layer: Any, adapter: str) -> bool:
    """True for LoRA as it was published: no variant, no bias."""
    return adapter not in layer.lora_variant and layer.lora_B[adapter].bias is None


def apply(
    layer: Any, x: Tensor, dropped: Tensor | None, down: Tensor, up: Tensor, scaling: Scaling
) -> Tensor:
    """(…, out): the outputs of a frozen layer with LoRA for inputs (…, in).

    dropped: the inputs after dropout, which A gets; None without dropout. down, up: A and B.
    """
    base, width = frozen.of(layer), x.shape[-1]
    if base is not None and base.frozen and _in_precision_of(base.weight):
        rows = x.reshape(-1, width).to(base.weight.dtype)
        other = None if dropped is None else dropped.reshape(-1, width).to(rows.dtype)
        outputs = _Whole.apply(rows, other, down, up, scaling, base)
    else:
        outputs = layer(x)
        rows = (x if dropped is None else dropped).reshape(-1, width).to(outputs.dtype)
        flat = outputs.reshape(-1, outputs.shape[-1])
        outputs = _Beside.apply(flat, rows, down, up, scaling)
    return outputs.view(*x.shape[:-1], outputs.shape[-1])  # type: ignore[no-any-return]


def _in_precision_of(weight: Tensor) -> bool:
    """True if products are in a weight's precision; some models keep a few weights in another."""
    device = weight.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return True
    return torch.get_autocast_dtype(device) == weight.dtype


class _Whole(Function):
    """LoRA with the frozen product, on rows (n, in)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: Scaling,
        base: FrozenProduct,
    ) -> Tensor:
        ctx.base, outputs = base, base(x)
        _add_update(ctx, outputs, x if dropped is None else dropped, down, up, scaling)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_input, dropped, *_ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        low, down, *by_factors = _by_factors(ctx, gradient, ctx.needs_input_grad[2:4])
        total = ctx.base.gradient(gradient) if by_input else None
        by_dropped = _product(low, down).flatten(0, -2) if dropped else None
        if total is not None and not dropped:
            _add_product(_shares(total, down), low, down)
        return total, by_dropped, *by_factors, None, None


class _Beside(Function):
    """LoRA beside a layer with a product of its own, such as a quantized one."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, x: Tensor, down: Tensor, up: Tensor, scaling: Scaling
    ) -> Tensor:
        outputs = outputs.clone()
        _add_update(ctx, outputs, x, down, up, scaling)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:4]
        low, down, *by_factors = _by_factors(ctx, gradient.contiguous(), wanted)
        by_input = _product(low, down).flatten(0, -2) if ctx.needs_input_grad[1] else None
        return gradient, by_input, *by_factors, None


def _add_update(
    ctx: Any, outputs: Tensor, x: Tensor, down: Tensor, up: Tensor, scaling: Scaling
) -> None:
    """Add s·(x·Aᵀ)·Bᵀ to the outputs (n, out) in place, and keep what the backward pass needs."""
    ctx.scaling, ctx.dtypes = scaling, (down.dtype, up.dtype)
    rows, down, up = _shares(x, down), down.to(x.dtype), up.to(x.dtype)
    low = _product(rows, down.mT).mul_(scaling)
    _add_product(_shares(outputs, up), low, up.mT)
    ctx.save_for_backward(rows, low, down, up)


def _by_factors(
    ctx: Any, gradient: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradient by x·Aᵀ from that by the outputs (n, out), A, and the gradients by A and B.

    wanted: those of A and B that are needed.
    """
    rows, low, down, up = ctx.saved_tensors
    shares = _shares(gradient, up)
    by_low = _product(shares, up).mul_(ctx.scaling)
    by_down = _product(by_low.mT, rows).to(ctx.dtypes[0]) if wanted[0] else None
    by_up = _product(low.mT, shares).mT.to(ctx.dtypes[1]) if wanted[1] else None
    return by_low, down, by_down, by_up


def _shares(x: Tensor, factor: Tensor) -> Tensor:
    """The rows (n, width) of one client, or of each of a factor's clients, (K, n/K, width)."""
    return x if factor.dim() == 2 else x.view(len(factor), -1, x.shape[-1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    return torch.mm(left, right) if left.dim() == 2 else torch.bmm(left, right)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product to a total, in place."""
    if total.dim() == 2:
        total.addmm_(left, right)
    else:
        total.baddbmm_(left, right)
