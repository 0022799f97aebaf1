"""Logits only where there is a label: the output layer is the largest of many models."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def labels_only(model: torch.nn.Module, at: Tensor) -> Iterator[None]:
    """Let the output layer see the hidden states at `at` alone: (R, T, H) → (1, N, H).

    A hook on the layer, rather than a call of the parts, keeps whatever an architecture does with
    its logits afterwards (soft-capping, scaling).
    """

    def select(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1])[at][None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
