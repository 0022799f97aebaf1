"""RMSNorm as one operation: w·x/√(mean(x²) + ε) (Zhang and Sennrich 2019, 1910.07467).

Modules of transformers chain eight operations forward, and twice as many backward, on copies of the
states in float32. Here the mean alone is in float32, as is each product before it is rounded.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Module

NEAR = 1e-5  # of the largest value; modules of other formulas differ by far more
SUFFIX = "RMSNorm"


def use(model: Module) -> None:
    """Let the RMSNorm modules of a model that have this formula compute as one operation."""
    norms = [module for module in model.modules() if type(module).__name__.endswith(SUFFIX)]
    same = {kind: _has_formula(kind) for kind in {type(module) for module in norms}}
    for module in norms:
        if same[type(module)]:
            module.forward = partial(_forward, module)


def _has_formula(kind: Any) -> bool:
    """True if modules of a class have the values and gradients of `rms_norm`."""
    generator = torch.Generator().manual_seed(0)  # the run's random numbers stay as they are
    try:
        module = kind(8, eps=0.1)
        weight = torch.rand(8, generator=generator) + 1
        module.weight.data = weight
        module.variance_epsilon  # noqa: B018 (a module without it has another formula)
        x = torch.randn(3, 8, generator=generator).requires_grad_()
        with torch.enable_grad():
            pairs = zip(_both(module(x), x), _both(rms_norm(x, weight, 0.1), x), strict=True)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return all((one - other).abs().max() <= NEAR * one.abs().max() for one, other in pairs)


def _both(outputs: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and the gradient of the sum of their squares by the inputs."""
    return outputs, torch.autograd.grad(outputs.square().sum(), x)[0]


def _forward(module: Any, states: Tensor) -> Tensor:
    """The forward pass of a module; one whose weight is trained computes by itself."""
    weight = module.weight
    if weight.requires_grad or weight.dtype != states.dtype:
        outputs: Tensor = type(module).forward(module, states)
        return outputs
    return rms_norm(states, weight, module.variance_epsilon)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """(…, H): the normed inputs (…, H) times a frozen weight (H,)."""
    outputs: Tensor = _RMSNorm.apply(x, weight, epsilon)
    return outputs


class _RMSNorm(Function):
    """The function of `rms_norm`; the inputs ÷ their root mean square are kept for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        factors = norms.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()  # (…, 1)
        unit = torch.mul(x, factors, out=torch.empty_like(x))
        ctx.save_for_backward(unit, factors, weight)
        return unit * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        unit, factors, weight = ctx.saved_tensors
        by_unit = gradient * weight
        along = torch.linalg.vecdot(by_unit, unit).unsqueeze(-1).div_(unit.shape[-1])
        by_unit.addcmul_(unit, along, value=-1)
        return torch.mul(by_unit, factors, out=by_unit), None, None
