"""The adapters of many clients in one matrix, applied in one forward pass of the base model.

The trained tensors of a client are one row of a matrix, (K, P) in float32: gradients, clipping and
the optimizer's step are a few operations on this matrix. Tensors that are not trained are rows of a
second matrix. Smaller ranks are padded with zeros.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from math import prod

import torch
from peft import PeftModel
from torch import Tensor

from hanse.learners.batched_clients import adapted_layers
from hanse.learners.batched_clients.batched_layers import BatchedLayer, Drop
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.tensors.named import Tensors


def stackable(model: PeftModel, attached: AttachedAdapter, tensors: Tensors) -> bool:
    """Tell if clients with such an adapter can train together."""
    return adapted_layers.find(model, attached, [tensors]) is not None


class StackedAdapters:
    """The adapters of K clients over one base model.

    layers: the adapted layers of the model.
    starts: each client's tensors, all of the same names. trained: the names of trained tensors.
    scalings: α/r by client and adapted layer. dtype, device: of the base model's products.
    """

    def __init__(
        self,
        layers: Sequence[BatchedLayer],
        starts: Sequence[Tensors],
        trained: Collection[str],
        scalings: Sequence[Mapping[str, float]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._layers, self._dtype = layers, dtype
        self._shapes = {
            layer.name + suffix: shape for layer in layers for suffix, shape in layer.shapes.items()
        }
        names = [name for name in self._shapes if name in trained]
        self._spans, rows = self._packed(names, starts)
        self.rows = rows.to(device).requires_grad_()
        frozen = [name for name in self._shapes if name not in trained]
        spans, frozen_rows = self._packed(frozen, starts)
        frozen_rows = frozen_rows.to(device, dtype)
        self._frozen = {name: frozen_rows[:, begin:end] for name, (begin, end) in spans.items()}
        factors = [[client.get(layer.name, 1.0) for client in scalings] for layer in layers]
        self._scalings = torch.tensor(factors, dtype=dtype, device=device)[:, :, None, None]

    def _packed(
        self, names: Sequence[str], starts: Sequence[Tensors]
    ) -> tuple[dict[str, tuple[int, int]], Tensor]:
        """The span of each of these tensors in a row, and the rows of all clients on the host."""
        ends = [0, *accumulate(prod(self._shapes[name]) for name in names)]
        spans = dict(zip(names, pairwise(ends), strict=True))
        rows = torch.zeros(len(starts), ends[-1])
        for row, start in zip(rows, starts, strict=True):
            for name, span in spans.items():
                self._view(row, name, span, start[name]).copy_(start[name])
        return spans, rows

    def _view(self, row: Tensor, name: str, span: tuple[int, int], like: Tensor) -> Tensor:
        """One tensor in a row, in the shape of `like`."""
        padded = row[slice(*span)].view(self._shapes[name])
        return padded[tuple(slice(size) for size in like.shape)]

    def views(self, row: Tensor, like: Tensors) -> dict[str, Tensor]:
        """One client's trained tensors as views of a row (P,), in the shapes of `like`."""
        return {name: self._view(row, name, span, like[name]) for name, span in self._spans.items()}

    @contextmanager
    def applied(self, members: int, drop: Drop | None = None) -> Iterator[None]:
        """Within, the base model applies the first `members` clients' adapters to their own rows.

        The rows of a batch belong to the clients in equal shares, in order.
        """
        sizes = [end - begin for begin, end in self._spans.values()]
        parts = self.rows[:members].to(self._dtype).split(sizes, dim=1)
        rows = dict(zip(self._spans, parts, strict=True))
        rows |= {name: frozen[:members] for name, frozen in self._frozen.items()}
        matrices = {n: part.reshape(members, *self._shapes[n]) for n, part in rows.items()}
        handles = []
        try:
            for index, layer in enumerate(self._layers):
                own = {suffix: matrices[name] for suffix, name in layer.names.items()}
                scaling = self._scalings[index, :members]
                handles.append(layer.attach(own, scaling, drop, index))
            yield
        finally:
            for handle in handles:
                handle.remove()
