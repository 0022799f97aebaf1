"""Logits only where there is a label: the output layer is the largest of many models."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def labels_only(model: torch.nn.Module, at: Tensor, width: int) -> Iterator[None]:
    """Let the output layer see the hidden states at `at` alone: (R, T, H) → (1, N, H).

    at: (N,) places in the flattened (R·width) positions. Where T is more than the width, trained
        vectors stand before the tokens.

    A hook on the layer, rather than a call of the parts, keeps whatever an architecture does with
    its logits afterwards (soft-capping, scaling).
    """

    def select(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        before = hidden.shape[1] - width
        places = at + (at.div(width, rounding_mode="floor") + 1) * before if before else at
        return (hidden.reshape(-1, hidden.shape[-1])[places][None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
