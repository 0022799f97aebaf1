"""Floating-point operations for a token, and per second on this machine."""

import logging
import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from hanse.data.packed import lengths
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.learners.kernels import frozen
from hanse.learners.models.settings import Kernel
from hanse.learners.training.rollouts import rolled_out

log = logging.getLogger(__name__)

SIZES = (256, 512, 1024, 2048, 4096, 8192)  # rows of the matrices, in turn
REPEATS = 2
BUDGET = 1.2  # seconds; sizes that would take longer are left out
ATTENTION = ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu")


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention, counted as if each query head had its own keys and values."""
    key, value = ((rows, query[1], *rest) for rows, _, *rest in (key, value))
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention's backward pass; out: the shape of the incoming gradient."""
    key, value = ((rows, query[1], *rest) for rows, _, *rest in (key, value))
    return int(sdpa_backward_flop_count(out, query, key, value))


def _added(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    """Operations of a product that is added to a total in place."""
    return int(2 * math.prod(left) * right[-1])


def rules() -> dict[Any, Any]:
    """Rules for operators that torch's counter does not know.

    For attention, it has no rules for CPUs, and before torch 2.13 its rules for GPUs fail where
    heads share their keys.
    """
    aten = torch.ops.aten
    rules: dict[Any, Any] = {aten.addmm_: _added, aten.baddbmm_: _added}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # of inputs (…, in) by a weight (out, in)
        rules[torch.ops.mkldnn._linear_pointwise] = lambda inputs, weight, *_, **__: (
            2 * math.prod(inputs) * weight[0]
        )
    for kind in ATTENTION:
        name = f"_scaled_dot_product_{kind}"
        rules[getattr(aten, name)] = _attention
        rules[getattr(aten, f"{name}_backward")] = _attention_backward
    if not hasattr(torch.ops.bitsandbytes, "gemm_4bit"):
        return rules
    # Inputs (…, K) by packed weights that stand for the matrix (N, K).
    return rules | {
        torch.ops.bitsandbytes.gemm_4bit: (
            lambda inputs, _, shape, *__, **___: 2 * math.prod(inputs) * shape[0]
        )
    }


@cache  # once a process: several runs follow each other in a baseline comparison
def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest square matrix product by any kernel, measured within about a second."""
    generator = torch.Generator(device).manual_seed(0)  # the run's random numbers stay as they are
    best, fastest, start = 0.0, 0.0, time.perf_counter()
    with torch.no_grad():
        for size in SIZES:
            # The fastest counts, since other programs may have slowed down the last one.
            if time.perf_counter() - start + 16 * fastest * REPEATS > BUDGET:
                break
            shape = (2, size, size)
            left, right = torch.rand(shape, generator=generator, device=device).to(dtype)
            fastest = min(_seconds(left, *way) for way in _ways(right) for _ in range(REPEATS))
            best = max(best, 2 * size**3 / fastest)
    if device.type == "cuda":  # so that the run's own peak of memory is measured
        del left, right
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return best


def per_token(learner: Learner, objective: Objective, examples: Sequence[Any]) -> dict[str, float]:
    """FLOPs per token of training and of the forward pass alone, by torch's own counter.

    The example of median length passes forward and backward. The run's gradients, states and random
    numbers stay as they are. Empty if the operations cannot be counted.
    """
    sizes = lengths(examples)
    median = sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]
    batch = learner.batch(rolled_out(objective, learner, [examples[median]], seed=0))
    counter = FlopCounterMode(display=False, custom_mapping=rules())
    try:
        with torch.random.fork_rng(), counter:
            loss = objective.loss(learner, batch)
            forward = counter.get_total_flops()
            parameters = list(learner.parameters().values())
            if parameters:  # not loss.backward(), which would leave gradients behind
                torch.autograd.grad(loss, parameters, allow_unused=True)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # an operator without a rule must not stop a run
        log.warning("the operations of training could not be counted: %s", error)
        return {}
    # Without gradients, a step is two forward passes.
    total = counter.get_total_flops() if parameters else 2 * forward
    return {
        "train_flops_per_token": total / batch.tokens,
        "forward_flops_per_token": forward / batch.tokens,
    }


def _ways(weight: torch.Tensor) -> list[tuple[torch.Tensor, Kernel]]:
    """The weight as each kernel of this device takes it; packed ones are oneDNN's fastest."""
    if "packed" not in frozen.kernels(weight.device):
        return [(weight, "torch")]
    return [(weight, "torch"), (frozen.packed(weight), "packed")]


def _seconds(left: torch.Tensor, weight: torch.Tensor, kernel: Kernel) -> float:
    """The seconds of one matrix product."""
    _finish(left.device)
    start = time.perf_counter()
    frozen.product(left, weight, None, kernel)
    _finish(left.device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
