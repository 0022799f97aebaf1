"""The LoRA matrices of several clients side by side, and how a shared base model applies them.

All that one client trains is a row of one matrix, (K, P) in float32, so that gradients, clipping
and the optimizer's steps are a few operations on that matrix. What of its adapter it does not train
is a row of another one. Unequal ranks are padded with zeros: padded rows of A and columns of B get
no gradient, and stay zero.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from hanse.factors import A, B
from hanse.tensors import Tensors


@dataclass(frozen=True)
class Adapted:
    """One adapted layer: its name, its frozen layer, and the largest rank of the clients' there."""

    name: str
    base: Module
    rank: int
    inputs: int
    outputs: int


def stackable(model: PeftModel, parameters: Tensors) -> bool:
    """Whether an adapter is nothing but LoRA on layers that every token passes."""
    modules = dict(model.named_modules())
    output = model.get_output_embeddings()  # it sees labelled positions only
    for name in parameters:
        home = modules.get(name.removesuffix(A).removesuffix(B))
        if not name.endswith((A, B)) or home is None or _base(home) is output:
            return False
    return True


class Stack:
    """The adapters of K clients over one base model.

    starts: each client's tensors, all of the same names; trained: those names that are trained.
    scalings: α/r by client and adapted layer. dtype, device: those of the base model's products.
    """

    def __init__(
        self,
        model: PeftModel,
        starts: Sequence[Tensors],
        trained: Collection[str],
        scalings: Sequence[Mapping[str, float]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._layers = _adapted(model, starts)
        self._dtype = dtype
        self._shapes = {
            name: shape
            for at in self._layers
            for name, shape in (
                (at.name + A, (at.rank, at.inputs)),
                (at.name + B, (at.outputs, at.rank)),
            )
        }
        names = [name for name in self._shapes if name in trained]
        self._spans, rows = self._packed(names, starts)
        rest, held = self._packed([name for name in self._shapes if name not in trained], starts)
        self.rows = rows.to(device).requires_grad_()
        held = held.to(device, dtype)
        self._held = {name: held[:, begin:end] for name, (begin, end) in rest.items()}
        factors = [[own[at.name] for own in scalings] for at in self._layers]
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
        height, width = like.shape
        return row[slice(*span)].view(self._shapes[name])[:height, :width]

    def views(self, row: Tensor, like: Tensors) -> dict[str, Tensor]:
        """One client's trained tensors as views of a row (P,), in the shapes that `like` has."""
        return {name: self._view(row, name, span, like[name]) for name, span in self._spans.items()}

    @contextmanager
    def applied(self, members: int, drop: "Drop | None" = None) -> Iterator[None]:
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
            for index, layer in enumerate(self._layers):
                down, up = matrices[layer.name + A], matrices[layer.name + B]
                low = _LowRank(down, up, self._scalings[index, :members], drop, index)
                handles.append(low.attach(layer.base))
            yield
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True)
class Drop:
    """Dropout of each client's rows in one batch, from its own random numbers.

    seeds: each client's for this batch. With them and the number of a layer all is drawn anew, so
    that a layer that is computed a second time drops the same.
    shapes: the rows and tokens that each client's batch has by itself, so that what is drawn does
    not depend on who trains beside it.
    """

    shares: Sequence[float]
    seeds: Sequence[int]
    shapes: Sequence[tuple[int, int]]

    def __call__(self, x: Tensor, layer: int) -> Tensor:
        """(K, R, T, H) inputs of an adapted layer, some of them zero and the rest scaled up."""
        mask, generator = torch.ones_like(x), torch.Generator(x.device)
        for own, share, seed, (rows, tokens) in zip(
            mask, self.shares, self.seeds, self.shapes, strict=True
        ):
            if share and rows:
                generator.manual_seed(seed + layer)
                kept = torch.empty(rows, tokens, x.shape[-1], device=x.device)
                kept.bernoulli_(1 - share, generator=generator).div_(1 - share)
                own[:rows, :tokens] = kept
        return x * mask


@dataclass(frozen=True)
class _LowRank:
    """What the clients' matrices add to the output of one frozen layer."""

    down: Tensor  # (K, r, in)
    up: Tensor  # (K, out, r)
    scaling: Tensor  # (K, 1, 1)
    drop: Drop | None
    layer: int

    def attach(self, base: Module) -> RemovableHandle:
        return base.register_forward_hook(self._add)

    def _add(self, base: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x, members = inputs[0].to(self.down.dtype), len(self.down)
        if self.drop is not None:
            x = self.drop(x.view(members, -1, *x.shape[1:]), self.layer)
        x = x.reshape(members, -1, x.shape[-1])
        low = torch.bmm(x, self.down.transpose(1, 2)) * self.scaling
        out = output.view(members, -1, output.shape[-1])
        return torch.baddbmm(out, low, self.up.transpose(1, 2)).view_as(output)


def _adapted(model: PeftModel, starts: Sequence[Tensors]) -> list[Adapted]:
    """The adapted layers, in the order of the model."""
    found = []
    for name, module in model.named_modules():
        if name + A in starts[0]:
            rank = max(len(start[name + A]) for start in starts)
            inputs, outputs = starts[0][name + A].shape[1], len(starts[0][name + B])
            found.append(Adapted(name, _base(module), rank, inputs, outputs))
    return found


def _base(module: Module) -> Module:
    """The frozen layer inside PEFT's."""
    base: Module = module.get_base_layer()  # type: ignore[operator]
    return base
