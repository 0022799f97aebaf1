"""Logits and hidden states at labels alone; the output layer is the largest of many models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def selected(hidden: Tensor, at: Tensor, width: int) -> Tensor:
    """(N, H): the hidden states (R, T, H) at some positions.

    at: (N,) flattened (R·width) positions. If T is more than the width, virtual tokens precede the
        text.
    """
    before = hidden.shape[1] - width
    positions = at + (at.div(width, rounding_mode="floor") + 1) * before if before else at
    return hidden.reshape(-1, hidden.shape[-1])[positions]


def selected_states(layers: Sequence[Tensor], at: Tensor, width: int) -> Tensor:
    """(layers, N, H): the same of the hidden states of several layers."""
    return torch.stack([selected(hidden, at, width) for hidden in layers])


@contextmanager
def labels_only(model: torch.nn.Module, at: Tensor, width: int) -> Iterator[None]:
    """Within this context, the output layer gets the hidden states at `at` alone.

    Its input is (1, N, H) instead of (R, T, H). A hook on the layer, rather than a call of the
    parts, keeps an architecture's own treatment of its logits (soft-capping, scaling).

    at: (N,) flattened (R·width) positions.
    """

    def select(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (selected(inputs[0], at, width)[None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
