"""What the clients of a cohort have in one layer of a shared model, each applied to its own rows.

A batch's rows belong to the clients in equal shares, in order; so a layer's inputs, seen as
(K, rows·tokens, in), meet the clients' matrices in one batched product. A kind of adapter that
cohorts can train is a class here, or among the prompts (prompts.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle

from hanse.learners.injection.tuners.lora_xs import CORE
from hanse.tensors.low_rank import A, B

VECTOR = ".ia3_l"
NARROW = (
    *(".bottleneck_down.weight", ".bottleneck_down.bias"),
    *(".bottleneck_up.weight", ".bottleneck_up.bias"),
)
WEIGHT, BIAS = ".weight", ".bias"

Own = Mapping[str, Tensor]  # the clients' tensors by their suffixes, each (K, …)


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
        """(…, H) inputs of an adapted layer, some of them zero and the rest scaled up.

        Whatever their shape, these are so many rows for each client, as many as the largest batch
        has, and of each row its tokens, or one thing if the layer sees whole rows.
        """
        height = max(rows for rows, _ in self.shapes)
        shared = x.reshape(len(self.shapes), height, -1, x.shape[-1])  # (K, R, T, H)
        return (shared * self._mask(shared, layer)).view_as(x)

    def _mask(self, x: Tensor, layer: int) -> Tensor:
        """(K, R, T, H) numbers to multiply inputs with."""
        mask, generator = torch.ones_like(x), torch.Generator(x.device)
        for own, share, seed, (rows, tokens) in zip(
            mask, self.shares, self.seeds, self.shapes, strict=True
        ):
            if share and rows:
                generator.manual_seed(seed + layer)
                each = min(tokens, x.shape[2])
                kept = torch.empty(rows, each, x.shape[-1], device=x.device)
                kept.bernoulli_(1 - share, generator=generator).div_(1 - share)
                own[:rows, :each] = kept
        return mask


@dataclass(frozen=True)
class BatchedLayer(ABC):
    """One adapted layer.

    name: of its place. base: the layer that PEFT has put there. While the clients train it passes
        its input on to the frozen layer within, or to another adapter's, and adds nothing.
    shapes: by suffix, what of it has room for every client's tensor.
    """

    name: str
    base: Any
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def names(self) -> dict[str, str]:
        """The names of its tensors, by suffix."""
        return {suffix: self.name + suffix for suffix in self.shapes}

    @abstractmethod
    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        """Put the clients' tensors to work at the layer.

        scaling: (K, 1, 1) of LoRA; layer: the number of this piece, for dropout.
        """


class BatchedLora(BatchedLayer):
    """LoRA: y + s·B·A·x. Unequal ranks are padded with zeros, which get no gradient and stay."""

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        down, up = own[A], own[B]

        def add(_: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x, members = inputs[0].to(down.dtype), len(down)
            if drop is not None:
                x = drop(x, layer)
            low = torch.bmm(_shares(x, members), down.transpose(1, 2)) * scaling
            return torch.baddbmm(_shares(output, members), low, up.transpose(1, 2)).view_as(output)

        return _follow(self.base, add)


class BatchedIA3(BatchedLayer):
    """IA3: what a layer gives, or what enters it, times a vector."""

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        vectors = own[VECTOR].flatten(1)[:, None]  # (K, 1, width)

        def times(x: Tensor) -> Tensor:
            return (_shares(x, len(vectors)) * vectors).view_as(x).to(x.dtype)

        def enter(_: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return times(inputs[0]), *inputs[1:]

        if self.shapes[VECTOR][0] == 1:  # of what enters; else (width, 1)
            handle: RemovableHandle = self.base.register_forward_pre_hook(enter)
            return handle
        return _follow(self.base, lambda _, __, output: times(output))


@dataclass(frozen=True)
class BatchedBottleneck(BatchedLayer):
    """A bottleneck: h + W₂·f(W₁h + b₁) + b₂. bend: f."""

    bend: Any

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        down, before, up, after = (own[suffix] for suffix in NARROW)

        def follow(_: Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            x = _shares(output, len(down)).to(down.dtype)
            inner = self.bend(torch.baddbmm(before[:, None], x, down.transpose(1, 2)))
            more = torch.baddbmm(after[:, None], inner, up.transpose(1, 2))
            return output + more.view_as(output).to(output.dtype)

        return _follow(self.base, follow)


@dataclass(frozen=True)
class BatchedLoraXS(BatchedLayer):
    """LoRA-XS: y + s·B·R·A·x, of which R is each client's own. up: s·B; down: A."""

    up: Tensor
    down: Tensor

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        middle = own[CORE]
        up, down = self.up.to(middle), self.down.to(middle)

        def add(_: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            low = _shares(linear(inputs[0].to(down.dtype), down), len(middle))
            more = linear(torch.bmm(low, middle.transpose(1, 2)), up)
            return output + more.view_as(output).to(output.dtype)

        return _follow(self.base, add)


class BatchedLinear(BatchedLayer):
    """A linear layer that every client has of its own, such as a head's."""

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        weight, bias = own[WEIGHT], own.get(BIAS)

        def instead(_: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x = _shares(inputs[0], len(weight)).to(weight.dtype)
            found = torch.bmm(x, weight.transpose(1, 2))
            return (found if bias is None else found + bias[:, None]).view_as(output)

        return _follow(self.base, instead)


def _shares(x: Tensor, members: int) -> Tensor:
    """(K, rows·tokens, width): each client's share of what passes."""
    return x.reshape(members, -1, x.shape[-1])


def _follow(base: Any, hook: Callable[..., Tensor]) -> RemovableHandle:
    handle: RemovableHandle = base.register_forward_hook(hook)
    return handle
