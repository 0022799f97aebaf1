"""A residual: a low-rank change of the frozen base's weights, y ← y + x·downᵀ·upᵀ in each layer.

Algorithms that aggregate exactly put the part of an aggregate into it that an adapter cannot hold.
It is the same for all clients of a round. Its cost grows with its rank, not with the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module

from hanse.errors import UserError
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors
from hanse.tensors.named import Tensors


class Residual:
    """A residual for the layers of a model.

    tensors: up and down of each layer, named as LoRA's B and A are; they include any scaling.
    dtype, device: those of the model's products.
    """

    def __init__(
        self, model: PeftModel, tensors: Tensors, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.tensors = tensors
        self._paused = False
        modules: dict[str, Any] = dict(model.named_modules())
        self._layers: list[tuple[Module, Factors]] = []
        for name, change in low_rank.layers(tensors).items():
            if name not in modules:
                raise UserError(f"the model has no adapted layer {name}, which is to be changed.")
            layer = modules[name]
            factors = Factors(change.up.to(device, dtype), change.down.to(device, dtype))
            self._layers.append((layer, factors))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context, the model's layers are changed; do the backward pass within, too."""
        handles = [
            layer.register_forward_hook(partial(self._add, change))
            for layer, change in self._layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this context, inside `applied`, the layers are not changed."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _add(self, change: Factors, _: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self._paused:
            return output
        x = inputs[0].to(change.down.dtype)
        low = torch.nn.functional.linear(x, change.down)
        return output + torch.nn.functional.linear(low, change.up)


def merged(tensors: Tensors, scaling: float, residual: Tensors) -> tuple[dict[str, Tensor], int]:
    """Merge a LoRA adapter and a residual into one adapter; returns its tensors and rank.

    Its α is its rank. Layers of smaller rank are filled up with zeros, so that every LoRA library
    can read it.
    """
    adapter, change = low_rank.layers(tensors), low_rank.layers(residual)
    whole = {
        name: low_rank.shortened(
            low_rank.stacked(
                [(scaling, one), *((1.0, change[name]) for _ in range(name in change))]
            )
        )[0]
        for name, one in adapter.items()
    }
    rank = max(one.rank for one in whole.values())
    padded = {name: low_rank.padded(one, rank) for name, one in whole.items()}
    return {**low_rank.tensors(padded), **low_rank.non_factor_tensors(tensors)}, rank
