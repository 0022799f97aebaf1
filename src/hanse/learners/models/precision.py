"""In which precision a model computes, found by a measurement of less than a second.

Whether bfloat16 pays depends on the processor, on what torch was built with, and on the model's
shapes; that a processor has instructions for it says little.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from hanse.learners.models import short_attention

CLEAR = 1.1  # times as fast: less may be noise, and the processor's own word is taken
REPEATS = 3  # the fastest counts, since other programs may have held up the rest
BUDGET = 0.3  # seconds for a comparison, after which it is not repeated again
ROWS, TOKENS = 4, 64  # of a usual batch
WIDEST = 768, 2048  # of the matrices: larger ones would take long and say the same

Work = Callable[[], None]


@dataclass(frozen=True)
class ComputeMode:
    """How a model computes on a machine; resume keeps to it.

    plain_attention: rows that are short attend by plain products, longer ones by torch's kernel.
    """

    bf16: bool
    plain_attention: bool = False


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


def read(noted: Mapping[str, Any]) -> dict[str, ComputeMode]:
    """What was written down as plain values; what is damaged is left out."""
    plain = asdict(ComputeMode(bf16=False))
    return {
        name: ComputeMode(**values)
        for name, values in noted.items()
        if isinstance(values, dict) and values.keys() == plain.keys()
        if all(isinstance(value, bool) for value in values.values())
    }


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def shape(config: Any) -> Shape:
    """The layer's sizes by a model's configuration, narrowed if it is wide."""
    text, usual = config.get_text_config(), Shape()
    hidden = getattr(text, "hidden_size", None) or usual.hidden
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    heads = getattr(text, "num_attention_heads", None) or usual.heads
    width = getattr(text, "head_dim", None) or max(1, hidden // heads)
    group = max(1, heads // (getattr(text, "num_key_value_heads", None) or heads))
    most = max(1, WIDEST[0] // width // group)
    heads = group * min(heads // group, most)
    return Shape(min(hidden, WIDEST[0]), min(inner, WIDEST[1]), heads, group, width)


@cache  # so that all models of a shape in this process compute alike
def measured(bf16: bool, shape: Shape, device: torch.device) -> ComputeMode:
    """What is faster here for a layer of these sizes; bf16: it was asked for."""
    generator = torch.Generator(device).manual_seed(0)  # the global one is a run's own
    with torch.enable_grad():
        fused, products = (_attending(shape, plain, generator) for plain in (False, True))
        plain = _times_as_fast(fused, products, device) >= CLEAR
        if not bf16:
            whole = _layer(shape, torch.float32, False, generator)
            half = _layer(shape, torch.bfloat16, plain, generator)
            ratio = _times_as_fast(whole, half, device)
            bf16 = ratio >= CLEAR or (ratio > 1 / CLEAR and has_bf16(device))
    return ComputeMode(bf16, bf16 and plain)


def _times_as_fast(one: Work, other: Work, device: torch.device) -> float:
    """How many times as fast the other is."""
    best, start = [float("inf")] * 2, time.perf_counter()
    for repeat in range(1 + REPEATS):
        for place, work in enumerate((one, other)):
            seconds = _seconds(work, device)
            if repeat:  # the first time, libraries prepare themselves
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
    """Wait for a GPU, which works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _attending(shape: Shape, plain: bool, generator: torch.Generator) -> Work:
    """Attention alone, forward and back, of rows as long as any that may attend by products."""
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
    """A frozen decoder layer, forward and back to its input."""
    own, shared = shape.heads * shape.width, shape.heads // shape.group * shape.width
    sizes = {
        "q": (own, shape.hidden), "k": (shared, shape.hidden), "v": (shared, shape.hidden),
        "o": (shape.hidden, own), "gate": (shape.inner, shape.hidden),
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
    """RMSNorm as models have it: in float32, whatever comes."""
    whole = states.float()
    return (whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + 1e-6)).to(states.dtype)


def _random(generator: torch.Generator, dtype: torch.dtype, *size: int) -> Tensor:
    return torch.randn(size, generator=generator, device=generator.device).to(dtype)
