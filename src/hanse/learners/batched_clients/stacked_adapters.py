"""What the clients of a cohort train, side by side, and how a shared base model applies it.

All that one client trains is a row of one matrix, (K, P) in float32, so that gradients, clipping
and the optimizer's steps are a few operations on that matrix. What of its adapter it does not train
is a row of another one. Unequal ranks are padded with zeros.
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
    """Whether a cohort can apply all of an adapter."""
    return adapted_layers.found(model, attached, [tensors]) is not None


class StackedAdapters:
    """The adapters of K clients over one base model.

    found: where in the model the clients have something of their own.
    starts: each client's tensors, all of the same names; trained: those names that are trained.
    scalings: α/r by client and adapted layer. dtype, device: those of the base model's products.
    """

    def __init__(
        self,
        found: Sequence[BatchedLayer],
        starts: Sequence[Tensors],
        trained: Collection[str],
        scalings: Sequence[Mapping[str, float]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._pieces, self._dtype = found, dtype
        self._shapes = {
            piece.name + suffix: shape for piece in found for suffix, shape in piece.shapes.items()
        }
        names = [name for name in self._shapes if name in trained]
        self._spans, rows = self._packed(names, starts)
        rest, held = self._packed([name for name in self._shapes if name not in trained], starts)
        self.rows = rows.to(device).requires_grad_()
        held = held.to(device, dtype)
        self._held = {name: held[:, begin:end] for name, (begin, end) in rest.items()}
        factors = [[own.get(piece.name, 1.0) for own in scalings] for piece in found]
        self._scalings = torch.tensor(factors, dtype=dtype, device=device)[:, :, None, None]

    def _packed(
        self, names: Sequence[str], starts: Sequence[Tensors]
    ) -> tuple[dict[str, tuple[int, int]], Tensor]:
        """Where each of these tensors lies in a row, and the rows of all clients on the host."""
        ends = [0, *accumulate(prod(self._shapes[name]) for name in names)]
        spans = dict(zip(names, pairwise(ends), strict=True))
        rows = torch.zeros(len(starts), ends[-1])
        for row, start in zip(rows, starts, strict=True):
            for name, span in spans.items():
                self._view(row, name, span, start[name]).copy_(start[name])
        return spans, rows

    def _view(self, row: Tensor, name: str, span: tuple[int, int], like: Tensor) -> Tensor:
        """One tensor within a row, in the shape that `like` has."""
        room = row[slice(*span)].view(self._shapes[name])
        return room[tuple(slice(size) for size in like.shape)]

    def views(self, row: Tensor, like: Tensors) -> dict[str, Tensor]:
        """One client's trained tensors as views of a row (P,), in the shapes that `like` has."""
        return {name: self._view(row, name, span, like[name]) for name, span in self._spans.items()}

    @contextmanager
    def applied(self, members: int, drop: Drop | None = None) -> Iterator[None]:
        """The base model with the first `members` clients' adapters at work, each on its own rows.

        The rows of a batch belong to the clients in equal shares, in order.
        """
        sizes = [end - begin for begin, end in self._spans.values()]
        parts = self.rows[:members].to(self._dtype).split(sizes, dim=1)
        at_work = dict(zip(self._spans, parts, strict=True))
        at_work |= {name: rows[:members] for name, rows in self._held.items()}
        matrices = {n: own.reshape(members, *self._shapes[n]) for n, own in at_work.items()}
        handles = []
        try:
            for index, piece in enumerate(self._pieces):
                own = {suffix: matrices[name] for suffix, name in piece.names.items()}
                scaling = self._scalings[index, :members]
                handles.append(piece.attach(own, scaling, drop, index))
            yield
        finally:
            for handle in handles:
                handle.remove()
