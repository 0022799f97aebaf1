"""One decoder layer of a model's sizes with random weights, for measurements of its speed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import scaled_dot_product_attention, silu

from hanse.learners.kernels import short_attention
from hanse.learners.kernels.frozen import FrozenProduct
from hanse.learners.kernels.rms_norm import rms_norm
from hanse.learners.models.settings import Kernel

# By device: rows and tokens of a typical batch, and the largest sides of matrices; larger ones take
# longer and give the same ratio. Smaller work would measure how fast a GPU's kernels are launched.
BATCH = {"cpu": (4, 40), "cuda": (8, 512)}
WIDEST = {"cpu": (768, 2048), "cuda": (2048, 8192)}
COLD = 48 * 2**20  # bytes of weights that take turns, more than most caches hold

NAMES = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer's frozen products
LARGE = ("gate", "down")  # the largest in each direction


@dataclass(frozen=True)
class Shape:
    """The sizes of a model's decoder layers: `group` heads share a key and a value."""

    hidden: int = 576
    inner: int = 1536
    heads: int = 9
    group: int = 3
    width: int = 64
    layers: int = 30


def shape(config: Any, device: torch.device) -> Shape:
    """The sizes of the layers in a model's configuration, at most WIDEST."""
    text, default = config.get_text_config(), Shape()
    widest, widest_inner = WIDEST[device.type]
    hidden = getattr(text, "hidden_size", None) or default.hidden
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    heads = getattr(text, "num_attention_heads", None) or default.heads
    width = getattr(text, "head_dim", None) or max(1, hidden // heads)
    group = max(1, heads // (getattr(text, "num_key_value_heads", None) or heads))
    most = max(1, widest // width // group)
    heads = group * min(heads // group, most)
    layers = getattr(text, "num_hidden_layers", None) or default.layers
    return Shape(min(hidden, widest), min(inner, widest_inner), heads, group, width, layers)


@dataclass
class SampleLayers:
    """Layers of one shape on one device.

    Each call of a layer's work takes the weights of the next layer, as a model does: they come from
    memory, not from the cache, unless all layers of the model fit there.
    """

    shape: Shape
    device: torch.device
    _weights: dict[torch.dtype, list[dict[str, Tensor]]] = field(default_factory=dict)

    def attention(self, plain: bool) -> Callable[[], None]:
        """Attention alone, forward and backward, of the longest rows with plain attention."""
        heads = [self.shape.heads, *[self.shape.heads // self.shape.group] * 2]
        leaves = [
            self._random(torch.bfloat16, 1, count, short_attention.LONGEST, self.shape.width)
            for count in heads
        ]
        for leaf in leaves:
            leaf.requires_grad_()

        def work() -> None:
            torch.autograd.grad(_attend(*leaves, plain=plain).sum(), leaves)
            self._finish()

        return work

    def layer(self, dtype: torch.dtype, plain: bool, kernel: Kernel) -> Callable[[], None]:
        """A frozen decoder layer, forward, and backward to its input.

        plain: attention by plain products. kernel: of the frozen products.
        """
        x = self._random(dtype, *BATCH[self.device.type], self.shape.hidden).requires_grad_()
        layers = self._in_turns(dtype, kernel, NAMES)

        def work() -> None:
            torch.autograd.grad(_forward(x, next(layers), self.shape.width, plain).sum(), x)
            self._finish()

        return work

    def product(self, dtype: torch.dtype, kernel: Kernel) -> Callable[[], None]:
        """One of the large products of a layer alone, forward and backward.

        It takes a small part of a layer's time, and is seldom interrupted.
        """
        rows, shape = prod(BATCH[self.device.type]), self.shape
        inputs = {side: self._random(dtype, rows, side) for side in (shape.hidden, shape.inner)}
        layers = self._in_turns(dtype, kernel, LARGE)
        products = (product for layer in layers for product in layer.values())

        def work() -> None:
            product = next(products)
            product.gradient(product(inputs[product.weight.shape[1]]))
            self._finish()

        return work

    def _in_turns(
        self, dtype: torch.dtype, kernel: Kernel, names: Sequence[str]
    ) -> Iterator[dict[str, FrozenProduct]]:
        """Frozen products of each layer in turn, by name; the first call prepares them all."""
        if dtype not in self._weights:
            self._weights[dtype] = list(self._layers(dtype))
        layers = [
            {name: _product(weights[name], kernel) for name in names}
            for weights in self._weights[dtype]
        ]
        yield from cycle(layers)

    def _layers(self, dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
        """The weights of as many layers as exceed the cache, or as the model has."""
        shape = self.shape
        query = shape.heads * shape.width
        shared = query // shape.group  # of keys and values
        outputs = (query, shared, shared, shape.hidden, shape.inner, shape.inner, shape.hidden)
        inputs = (*[shape.hidden] * 3, query, shape.hidden, shape.hidden, shape.inner)
        first = {
            name: self._random(dtype, *size) / 30
            for name, *size in zip(NAMES, outputs, inputs, strict=True)
        }
        layer_bytes = sum(weight.nbytes for weight in first.values())
        yield first
        for _ in range(min(shape.layers - 1, COLD // layer_bytes)):
            yield {name: weight.clone() for name, weight in first.items()}

    def _random(self, dtype: torch.dtype, *size: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)  # the run's own stays as it is
        return torch.randn(size, generator=generator, device=self.device).to(dtype)

    def _finish(self) -> None:
        """Wait until a GPU has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _product(weight: Tensor, kernel: Kernel) -> FrozenProduct:
    """The product with a frozen weight, which is packed now where the kernel wants that."""
    layer = Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = Parameter(weight, requires_grad=False)
    product = FrozenProduct(layer, kernel)
    product.gradient(product(weight[:1]))
    return product


def _forward(x: Tensor, products: dict[str, FrozenProduct], width: int, plain: bool) -> Tensor:
    """The output of a decoder layer."""

    def project(states: Tensor, name: str) -> Tensor:
        heads: Tensor = products[name].forward(states).unflatten(-1, (-1, width))
        return heads.transpose(1, 2)

    states = _normed(x)
    mixed = _attend(*(project(states, name) for name in "qkv"), plain=plain)
    after = x + products["o"].forward(mixed.flatten(2))
    states = _normed(after)
    inner = silu(products["gate"].forward(states)) * products["up"].forward(states)
    return after + products["down"].forward(inner)


def _attend(query: Tensor, key: Tensor, value: Tensor, *, plain: bool) -> Tensor:
    if plain:
        mixed = short_attention.causal(query, key, value, query.shape[-1] ** -0.5)
    else:
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2).contiguous()


def _normed(states: Tensor) -> Tensor:
    """RMSNorm as models compute it here."""
    return rms_norm(states, states.new_ones(states.shape[-1]), 1e-6)
