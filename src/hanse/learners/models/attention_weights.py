"""Attention weights of all layers, which the kernels that models train with do not return."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.learners.models.gradient_checkpointing import recomputed
from hanse.learners.models.label_logits import selected

RETURNING = "eager"  # the implementation of transformers that returns weights


@contextmanager
def computed(model: Any) -> Iterator[None]:
    """Within this context, a model computes its attention by products that return the weights.

    Raises UserError if the layers are computed again in the backward pass, outside of the context.
    """
    if torch.is_grad_enabled() and recomputed(model):
        raise UserError(
            "attention weights are not kept for the backward pass with gradient checkpointing; set "
            "model.gradient_checkpointing: false, or leave out the loss of attention weights."
        )
    usual = model.config._attn_implementation
    model.set_attn_implementation(RETURNING)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def selected_weights(layers: Sequence[Tensor], at: Tensor, width: int) -> Tensor:
    """(layers, N, heads, width): the weights (R, heads, T, K) at some positions.

    at: (N,) flattened (R·width) positions. If T or K are more than the width, virtual tokens
        precede the text; their weights are left out. Raises UserError without layers.
    """
    if not layers:
        raise UserError(
            "this model returns no attention weights; leave out the loss of attention weights, or "
            "choose a model with attention in all layers."
        )
    chosen = []
    for weights in layers:
        heads, keys = weights.shape[1], weights.shape[3]
        flat = weights.transpose(1, 2).flatten(2)  # (R, T, heads·K)
        chosen.append(selected(flat, at, width).view(len(at), heads, keys)[..., keys - width :])
    return torch.stack(chosen)
