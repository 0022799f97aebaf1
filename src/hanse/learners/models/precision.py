"""The precision, attention and products of a model, chosen by a measurement of less than a second.

The gain of bfloat16 and of a kernel depends on the processor, on torch's build, on the threads and
on the model's sizes; a processor's instructions alone do not tell.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from time import perf_counter
from typing import Any, get_args

import torch

from hanse.learners.kernels import frozen
from hanse.learners.models.sample_layer import SampleLayers, Shape, shape
from hanse.learners.models.settings import BaseModelSettings, Kernel, Products
from hanse.observability.paired_timing import (
    Comparison,
    Measurement,
    Way,
    compare,
    is_crowded,
    load_average,
)

log = logging.getLogger(__name__)

CLEAR = 1.05  # times as fast; what is less is a tie, which goes to the plainer way
BUDGET = 0.85  # seconds of a measurement
PREPARATION = 0.5  # seconds of them for each precision's fastest mode; the rest compares both
KERNEL_NAMES = {
    "torch": "torch's products",
    "onednn": "oneDNN's products",
    "packed": "oneDNN's products of packed weights",
}


@dataclass(frozen=True)
class ComputeMode:
    """A model's precision, attention and products on a machine; a resumed run keeps them.

    plain_attention: attention of short rows by plain products, of longer ones by torch's kernel.
    products: the kernel of products with frozen weights; "plain": as transformers and PEFT compute.
    """

    bf16: bool
    plain_attention: bool = False
    products: Products = "torch"

    def __str__(self) -> str:
        attention = ", attention of short rows by plain products" if self.plain_attention else ""
        kernel = KERNEL_NAMES.get(self.products, "products as transformers and PEFT compute them")
        return f"{'bfloat16' if self.bf16 else 'float32'} with {kernel}{attention}"


@dataclass(frozen=True)
class Fastest:
    """The fastest mode of each precision, as measured.

    precision: the comparison of both; None if no time was left, or the model is very small.
    """

    float32: ComputeMode
    bfloat16: ComputeMode
    precision: Comparison | None = None
    measurement: Measurement = field(default_factory=Measurement)

    @property
    def auto(self) -> ComputeMode:
        """The faster of both; float32 if no difference is clear."""
        clear = self.precision is not None and self.precision.second_wins(CLEAR)
        return self.bfloat16 if clear else self.float32


def choose(
    settings: BaseModelSettings, config: Any, device: torch.device, kernels: tuple[Kernel, ...]
) -> tuple[ComputeMode, Measurement]:
    """The fastest mode that the settings allow for a model, and the measurement of it.

    config: the model's. kernels: those that may be chosen for frozen products, "torch" first.
    """
    if settings.quantization != "none" or settings.products == "plain":
        kernels = ("torch",)
    elif settings.products != "auto":
        kernels = (settings.products,)
    fastest = measured(shape(config, device), device, torch.get_num_threads(), kernels)
    mode = fastest.auto
    if settings.bf16 != "auto":
        mode = fastest.bfloat16 if settings.bf16 else fastest.float32
        _say_if_slower(settings.bf16, fastest.precision)
    return mode, fastest.measurement


def _say_if_slower(bf16: bool, precision: Comparison | None) -> None:
    """Say so if the other precision than that of the settings is clearly faster."""
    if precision is None:
        return
    if precision.first_wins(CLEAR) if bf16 else precision.second_wins(CLEAR):
        log.info("model.bf16 is %s, and auto would be faster; %s", str(bf16).lower(), precision)


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


@cache  # so that all models of a shape in this process have one mode
def measured(
    shape: Shape, device: torch.device, threads: int, kernels: tuple[Kernel, ...]
) -> Fastest:
    """Measure a layer of these sizes; threads: of torch, on which the result depends.

    Layers that are too small for kernels are not measured. On a crowded machine, where threads wait
    for a core longer than they compute, one thread tells more of what is fast.
    """
    float32 = ComputeMode(False, products=kernels[0])
    bfloat16 = replace(float32, bf16=True)
    if shape.hidden * shape.inner < frozen.SMALLEST:
        return Fastest(float32, bfloat16)
    load = load_average()
    used = 1 if device.type == "cpu" and is_crowded(threads, load) else threads
    race = _Race(SampleLayers(shape, device), shares=2 * len(kernels) - 1)
    with torch.enable_grad(), _threads(used):
        bfloat16 = race.attention(bfloat16)
        float32, bfloat16 = (race.products(mode, kernels) for mode in (float32, bfloat16))
        precision = race.precision(float32, bfloat16)
    measurement = Measurement(tuple(race.comparisons), used, load)
    return Fastest(float32, bfloat16, precision, measurement)


@dataclass
class _Race:
    """Comparisons of modes within the seconds of a budget.

    shares: the number of comparisons left that share the seconds of PREPARATION.
    """

    layers: SampleLayers
    shares: int
    comparisons: list[Comparison] = field(default_factory=list)
    start: float = field(default_factory=lambda: perf_counter())

    def attention(self, mode: ComputeMode) -> ComputeMode:
        """The mode with the faster attention in bfloat16."""
        ways = (
            Way("torch's attention in bfloat16", self.layers.attention(plain=False)),
            Way("plain attention in bfloat16", self.layers.attention(plain=True)),
        )
        return replace(mode, plain_attention=self._second_wins(*ways, CLEAR))

    def products(self, mode: ComputeMode, kernels: tuple[Kernel, ...]) -> ComputeMode:
        """The mode with the fastest of the kernels for frozen products."""
        dtype_name, dtype = _dtype(mode)
        ways = {
            kernel: Way(
                f"{dtype_name} with {KERNEL_NAMES[kernel]}", self.layers.product(dtype, kernel)
            )
            for kernel in kernels
        }
        best = kernels[0]
        for kernel in kernels[1:]:
            if self._second_wins(ways[best], ways[kernel], CLEAR):
                best = kernel
        return replace(mode, products=best)

    def precision(self, float32: ComputeMode, bfloat16: ComputeMode) -> Comparison | None:
        """The comparison of both precisions, each in its fastest mode."""
        ways = self._layer(float32), self._layer(bfloat16)
        return self._compare(*ways, CLEAR, self.start + BUDGET)

    def _layer(self, mode: ComputeMode) -> Way:
        dtype_name, dtype = _dtype(mode)
        kernel: Kernel = "torch" if mode.products == "plain" else mode.products
        return Way(dtype_name, self.layers.layer(dtype, mode.plain_attention, kernel))

    def _second_wins(self, first: Way, second: Way, clear: float) -> bool:
        """True if the second way is clearly faster, within a share of the seconds that are left."""
        now = perf_counter()
        deadline = now + (self.start + PREPARATION - now) / self.shares
        self.shares -= 1
        comparison = self._compare(first, second, clear, deadline)
        return comparison is not None and comparison.second_wins(clear)

    def _compare(self, first: Way, second: Way, clear: float, end: float) -> Comparison | None:
        comparison = compare(first, second, clear, end)
        if comparison is not None:
            self.comparisons.append(comparison)
        return comparison


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Within this context, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dtype(mode: ComputeMode) -> tuple[str, torch.dtype]:
    return ("bfloat16", torch.bfloat16) if mode.bf16 else ("float32", torch.float32)
