"""The precision in which a model computes, chosen by a measurement of less than a second.

The gain of bfloat16 depends on the processor, on torch's build, and on the model's shapes; a
processor's instructions for it alone do not tell.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from hanse.learners.models import short_attention
from hanse.learners.models.settings import Products

CLEAR = 1.1  # times as fast; within less, the processor's instructions decide
REPEATS = 3  # the fastest counts, since other programs may have slowed down the others
BUDGET = 0.3  # seconds of a comparison, after which it is not repeated
ROWS, TOKENS = 4, 64  # of a typical batch
WIDEST = 768, 2048  # sides of the matrices; larger ones take longer and give the same ratio

Work = Callable[[], None]


@dataclass(frozen=True)
class ComputeMode:
    """A model's precision, attention and products on a machine; a resumed run keeps them.

    plain_attention: attention of short rows by plain products, of longer ones by torch's kernel.
    products: the kernel of products with frozen weights; "plain": as transformers and PEFT compute.
    """

    bf16: bool
    plain_attention: bool = False
    products: Products = "torch"


@dataclass(frozen=True)
class Shape:
    """The sizes of one decoder layer: `group` heads share a key and a value."""

    hidden: int = 576
    inner: int = 1536
    heads: int = 9
    group: int = 3
    width: int = 64


def choose(wanted: bool | Literal["auto"], config: Any, device: torch.device) -> ComputeMode:
    """The precision that was asked for, or the faster one for a model of this configuration."""
    if wanted is False:
        return ComputeMode(bf16=False)
    return measured(wanted is True, shape(config), device)


def compute_modes_from_json(modes: Mapping[str, Any]) -> dict[str, ComputeMode]:
    """Read compute modes from the plain values of JSON; damaged ones are left out."""
    usual = asdict(ComputeMode(bf16=False))
    complete = {
        name: {"products": "plain", **values}  # of runs before there was a choice
        for name, values in modes.items()
        if isinstance(values, dict)
    }
    return {
        name: ComputeMode(**values)
        for name, values in complete.items()
        if values.keys() == usual.keys() and values["products"] in get_args(Products)
        if all(isinstance(values[key], bool) for key in ("bf16", "plain_attention"))
    }


def has_bf16(device: torch.device) -> bool:
    """True if the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


def shape(config: Any) -> Shape:
    """The sizes of a layer in a model's configuration, at most WIDEST."""
    text, default = config.get_text_config(), Shape()
    hidden = getattr(text, "hidden_size", None) or default.hidden
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    heads = getattr(text, "num_attention_heads", None) or default.heads
    width = getattr(text, "head_dim", None) or max(1, hidden // heads)
    group = max(1, heads // (getattr(text, "num_key_value_heads", None) or heads))
    most = max(1, WIDEST[0] // width // group)
    heads = group * min(heads // group, most)
    return Shape(min(hidden, WIDEST[0]), min(inner, WIDEST[1]), heads, group, width)


@cache  # so that all models of a shape in this process have one mode
def measured(bf16: bool, shape: Shape, device: torch.device) -> ComputeMode:
    """The fastest mode for a layer of these sizes; bf16: True if the settings ask for it."""
    generator = torch.Generator(device).manual_seed(0)  # the run's random numbers stay as they are
    with torch.enable_grad():
        fused, products = (_attention(shape, plain, generator) for plain in (False, True))
        plain = _times_as_fast(fused, products, device) >= CLEAR
        if not bf16:
            whole = _layer(shape, torch.float32, False, generator)
            half = _layer(shape, torch.bfloat16, plain, generator)
            ratio = _times_as_fast(whole, half, device)
            bf16 = ratio >= CLEAR or (ratio > 1 / CLEAR and has_bf16(device))
    return ComputeMode(bf16, bf16 and plain)


def _times_as_fast(one: Work, other: Work, device: torch.device) -> float:
    """The ratio of the seconds of one to those of the other."""
    best, start = [float("inf")] * 2, time.perf_counter()
    for repeat in range(1 + REPEATS):
        for place, work in enumerate((one, other)):
            seconds = _seconds(work, device)
            if repeat:  # in the first call, libraries initialize
                best[place] = min(best[place], seconds)
        if repeat and time.perf_counter() - start > BUDGET:
            break
    return best[0] / best[1]


def _seconds(work: Work, device: torch.device) -> float:
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _attention(shape: Shape, plain: bool, generator: torch.Generator) -> Work:
    """Attention alone, forward and backward, of the longest rows with plain attention."""
    heads = [shape.heads, shape.heads // shape.group, shape.heads // shape.group]
    parts = [
        _random(generator, torch.bfloat16, 1, count, short_attention.LONGEST, shape.width)
        for count in heads
    ]
    leaves = [part.requires_grad_() for part in parts]

    def work() -> None:
        torch.autograd.grad(_attend(*leaves, plain=plain).sum(), leaves)

    return work


def _layer(shape: Shape, dtype: torch.dtype, plain: bool, generator: torch.Generator) -> Work:
    """A frozen decoder layer, forward, and backward to its input."""
    query = shape.heads * shape.width
    shared = shape.heads // shape.group * shape.width  # of keys and values
    sizes = {
        "q": (query, shape.hidden), "k": (shared, shape.hidden), "v": (shared, shape.hidden),
        "o": (shape.hidden, query), "gate": (shape.inner, shape.hidden),
        "up": (shape.inner, shape.hidden), "down": (shape.hidden, shape.inner),
    }  # fmt: skip
    weights = {name: _random(generator, dtype, *size) / 30 for name, size in sizes.items()}
    x = _random(generator, dtype, ROWS, TOKENS, shape.hidden).requires_grad_()

    def project(states: Tensor, name: str) -> Tensor:
        heads = linear(states, weights[name]).view(ROWS, TOKENS, -1, shape.width)
        return heads.transpose(1, 2)

    def work() -> None:
        states = _normed(x)
        mixed = _attend(*(project(states, name) for name in "qkv"), plain=plain)
        after = x + linear(mixed.flatten(2), weights["o"])
        states = _normed(after)
        inner = silu(linear(states, weights["gate"])) * linear(states, weights["up"])
        torch.autograd.grad((after + linear(inner, weights["down"])).sum(), x)

    return work


def _attend(query: Tensor, key: Tensor, value: Tensor, *, plain: bool) -> Tensor:
    if plain:
        return short_attention.causal(query, key, value, query.shape[-1] ** -0.5)
    mixed = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2).contiguous()


def _normed(states: Tensor) -> Tensor:
    """RMSNorm, computed in float32 as models do."""
    whole = states.float()
    return (whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + 1e-6)).to(states.dtype)


def _random(generator: torch.Generator, dtype: torch.dtype, *size: int) -> Tensor:
    return torch.randn(size, generator=generator, device=generator.device).to(dtype)
