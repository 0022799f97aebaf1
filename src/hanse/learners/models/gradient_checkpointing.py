"""Activations computed again in the backward pass instead of being kept: less memory, more time.

Only what enters each decoder layer is kept (Chen et al. 2016, 1604.06174). Transformers does so in
training mode only, in which the frozen base's own dropout would be at work.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from hanse.errors import UserError


def recompute(model: Module, name: str) -> None:
    """Let the layers of a model keep nothing for the backward pass but what enters them.

    Raises UserError if transformers does not mark any of its layers as fit for that.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model.gradient_checkpointing is on, but {name} has no layers that can be computed "
            "again; turn it off."
        )
    for layer in layers:
        layer.forward = partial(_forgetful, layer.forward)


def recomputed(model: Module) -> bool:
    """Whether the layers of a model are computed again."""
    own = (vars(module).get("forward") for module in model.modules())
    return any(isinstance(call, partial) and call.func is _forgetful for call in own)


def _forgetful(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a layer returns; without gradients there is nothing to forget."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *map(_entering, args), use_reentrant=False, **kwargs)


def _entering(given: Any) -> Any:
    return _Entered.apply(given) if isinstance(given, Tensor) and given.requires_grad else given


class _Entered(Function):
    """Hands states on as they are, and keeps them in the usual way, in no more memory.

    The checkpoint holds what enters where nobody would find it who counts what is kept.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        ctx.save_for_backward(states)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
