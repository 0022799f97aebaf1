"""Training steps of a model on this machine: counted, and timed pass by pass."""

import time
from dataclasses import dataclass

import torch
from torch.optim import AdamW

from hanse.learners import step_cost
from hanse.learners.models.random_models.build import RandomModel
from hanse.learners.step_cost import StepCost
from hanse.observability import power
from hanse.observability.memory import peak_memory
from hanse.planning.edge_study.records import Passes

REPEATS = 5  # timed steps of the optimizer, of which the fastest counts
SECONDS = 0.5  # of steps during which energy is read; shorter ones are below the counter's grain


@dataclass(frozen=True)
class MeasuredStep:
    """A step of a batch size: its cost, its seconds, memory at the peak, and joules if known.

    kept: bytes that the forward pass keeps for the backward pass.
    """

    rows: int
    cost: StepCost
    seconds: Passes
    memory: float
    kept: int
    joules: float | None


def measured_step(model: RandomModel, rows: int, length: int) -> MeasuredStep:
    """Count and time a training step with batches of so many rows."""
    loss, tokens = model.loss(rows, length)
    device = model.trained[0].device
    optimizer = AdamW(model.trained, fused=device.type == "cpu")
    cost = step_cost.count(loss, model.trained, tokens)
    kept = step_cost.saved_bytes(loss, model.weights)
    forward, backward = step_cost.seconds(loss, model.trained, device)
    update = min(_optimizer_seconds(model, optimizer) for _ in range(REPEATS + 1))
    seconds = Passes(forward, backward, update)
    joules = _joules(model, loss, optimizer, seconds)
    return MeasuredStep(rows, cost, seconds, _peak(device), kept, joules)


def _optimizer_seconds(model: RandomModel, optimizer: AdamW) -> float:
    for parameter in model.trained:
        parameter.grad = torch.zeros_like(parameter)
    start = _now(model)
    optimizer.step()
    optimizer.zero_grad()
    return _now(model) - start


def _joules(
    model: RandomModel, loss: step_cost.Loss, optimizer: AdamW, seconds: Passes
) -> float | None:
    """The energy of a step, by the counters of whole processors; None if there are none."""
    before = power.counters()
    if not before:
        return None
    steps = max(1, round(SECONDS / seconds.total))
    for _ in range(steps):
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    _now(model)
    used = power.joules(before, power.counters())
    return None if used is None else used / steps


def _now(model: RandomModel) -> float:
    if (device := model.trained[0].device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(device: torch.device) -> float:
    """The most bytes of the GPU that were in use, or else that this process has held."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(peak_memory())
