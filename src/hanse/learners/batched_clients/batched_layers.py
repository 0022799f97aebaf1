"""Adapter layers of all clients of a batch, one batched matrix product each.

The rows of a batch belong to the K clients in equal shares, in order. A layer's inputs, viewed as
(K, rows·tokens, in), are multiplied by the clients' matrices in one batched product. Each kind of
adapter that clients can train together has a class here or in prompts.py.
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
from hanse.learners.kernels import lora
from hanse.learners.models.layers import Replacement
from hanse.tensors.low_rank import A, B

VECTOR = ".ia3_l"
BOTTLENECK_TENSORS = (
    *(".bottleneck_down.weight", ".bottleneck_down.bias"),
    *(".bottleneck_up.weight", ".bottleneck_up.bias"),
)
WEIGHT, BIAS = ".weight", ".bias"

ClientTensors = Mapping[str, Tensor]  # by the suffixes of their names, each (K, …)
Handle = RemovableHandle | Replacement


@dataclass(frozen=True)
class Drop:
    """Dropout of each client's rows in one batch, from the client's own random numbers.

    seeds: each client's for this batch. A layer's mask is drawn from the seed and the layer's
        number: if the layer is computed again, it drops the same inputs.
    shapes: the rows and tokens of each client's batch by itself: the masks do not depend on the
        clients that train with it.
    """

    shares: Sequence[float]
    seeds: Sequence[int]
    shapes: Sequence[tuple[int, int]]

    def __call__(self, x: Tensor, layer: int) -> Tensor:
        """(…, H) inputs of an adapted layer, some of them set to zero and the others scaled up.

        In any shape, they hold the rows of each client in turn, as many as the largest batch has,
        and for each row its tokens, or one vector if the layer gets one for a whole row.
        """
        height = max(rows for rows, _ in self.shapes)
        shared = x.reshape(len(self.shapes), height, -1, x.shape[-1])  # (K, R, T, H)
        return (shared * self._mask(shared, layer)).view_as(x)

    def _mask(self, x: Tensor, layer: int) -> Tensor:
        """(K, R, T, H) factors of the inputs."""
        mask, generator = torch.ones_like(x), torch.Generator(x.device)
        clients = zip(mask, self.shares, self.seeds, self.shapes, strict=True)
        for client_mask, share, seed, (rows, tokens) in clients:
            if share and rows:
                generator.manual_seed(seed + layer)
                width = min(tokens, x.shape[2])
                factors = torch.empty(rows, width, x.shape[-1], device=x.device)
                factors.bernoulli_(1 - share, generator=generator).div_(1 - share)
                client_mask[:rows, :width] = factors
        return mask


@dataclass(frozen=True)
class BatchedLayer(ABC):
    """One adapted layer.

    name: of the layer, in the names of its tensors. base: PEFT's layer there. While the clients
        train, PEFT's adapters are off, and it only calls the layer that it is around.
    shapes: by the suffixes of its tensors, a shape that is large enough for every client's.
    """

    name: str
    base: Any
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def names(self) -> dict[str, str]:
        """The names of its tensors, by suffix."""
        return {suffix: self.name + suffix for suffix in self.shapes}

    @abstractmethod
    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        """Apply the clients' tensors in the layer until the handle is removed.

        scaling: (K, 1, 1), of LoRA. layer: the number of this layer, for dropout.
        """


class BatchedLora(BatchedLayer):
    """LoRA: y + s·B·A·x. Smaller ranks are padded with zeros, which get no gradient."""

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        factors = own[A], own[B]
        if len(scaling) == 1:
            factors, scaling = (factors[0][0], factors[1][0]), scaling[0]

        def forward(x: Tensor) -> Tensor:
            dropped = None if drop is None else drop(x.to(factors[0].dtype), layer)
            return lora.apply(self.base.base_layer, x, dropped, *factors, scaling)

        return Replacement(self.base, forward)


class BatchedIA3(BatchedLayer):
    """IA3: the output of a layer, or its input, times a vector."""

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        vectors = own[VECTOR].flatten(1)[:, None]  # (K, 1, width)

        def scale(x: Tensor) -> Tensor:
            return (_shares(x, len(vectors)) * vectors).view_as(x).to(x.dtype)

        def scale_input(_: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return scale(inputs[0]), *inputs[1:]

        if self.shapes[VECTOR][0] == 1:  # (1, width) scales the input, (width, 1) the output
            handle: Handle = self.base.register_forward_pre_hook(scale_input)
            return handle
        return _follow(self.base, lambda _, __, output: scale(output))


@dataclass(frozen=True)
class BatchedBottleneck(BatchedLayer):
    """A bottleneck: h + W₂·f(W₁h + b₁) + b₂. activation: f."""

    activation: Any

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        down, down_bias, up, up_bias = (own[suffix] for suffix in BOTTLENECK_TENSORS)

        def add(_: Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            x = _shares(output, len(down)).to(down.dtype)
            inner = self.activation(torch.baddbmm(down_bias[:, None], x, down.transpose(1, 2)))
            update = torch.baddbmm(up_bias[:, None], inner, up.transpose(1, 2))
            return output + update.view_as(output).to(output.dtype)

        return _follow(self.base, add)


@dataclass(frozen=True)
class BatchedLoraXS(BatchedLayer):
    """LoRA-XS: y + s·B·R·A·x with each client's R. up: s·B, and down: A, are the same for all."""

    up: Tensor
    down: Tensor

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        core = own[CORE]
        up, down = self.up.to(core), self.down.to(core)

        def add(_: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            low = _shares(linear(inputs[0].to(down.dtype), down), len(core))
            update = linear(torch.bmm(low, core.transpose(1, 2)), up)
            return output + update.view_as(output).to(output.dtype)

        return _follow(self.base, add)


class BatchedLinear(BatchedLayer):
    """A linear layer of which every client has its own copy, such as a head's."""

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        weight, bias = own[WEIGHT], own.get(BIAS)

        def replace(_: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x = _shares(inputs[0], len(weight)).to(weight.dtype)
            product = torch.bmm(x, weight.transpose(1, 2))
            return (product if bias is None else product + bias[:, None]).view_as(output)

        return _follow(self.base, replace)


def _shares(x: Tensor, members: int) -> Tensor:
    """(K, rows·tokens, width): each client's share of the inputs or outputs."""
    return x.reshape(members, -1, x.shape[-1])


def _follow(base: Any, hook: Callable[..., Tensor]) -> Handle:
    """Let `hook` compute the output of a layer from its inputs and its own output."""
    handle: Handle = base.register_forward_hook(hook)
    return handle
