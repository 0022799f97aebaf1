"""Gradient checkpointing: activations are computed again in the backward pass instead of kept.

Only the input of each decoder layer is kept (Chen et al. 2016, 1604.06174): less memory, more time.
Transformers' own checkpointing needs training mode, in which the frozen base's dropout would be on.
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
    """Let the layers of a model keep only their inputs for the backward pass.

    Raises UserError if transformers does not mark any of its layers as suitable.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model.gradient_checkpointing is on, but {name} has no layers that can be computed "
            "again; turn it off."
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def recomputed(model: Module) -> bool:
    """True if the layers of a model are computed again in the backward pass."""
    calls = (vars(module).get("forward") for module in model.modules())
    return any(isinstance(call, partial) and call.func is _checkpointed for call in calls)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a layer, with checkpointing if there are gradients."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *map(_visible, args), use_reentrant=False, **kwargs)


def _visible(argument: Any) -> Any:
    saves = isinstance(argument, Tensor) and argument.requires_grad
    return _SavedInput.apply(argument) if saves else argument


class _SavedInput(Function):
    """Returns states as they are, and saves them for the backward pass in no more memory.

    Torch's checkpoint keeps its inputs outside of the graph, where hooks that count the bytes of
    saved tensors do not see them.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        ctx.save_for_backward(states)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
