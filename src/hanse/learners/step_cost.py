"""The floating-point operations, bytes and operators of a training step's passes, and its seconds.

Operations are those that torch's counter counts. Bytes are those of each operator's inputs and
outputs, as an eager step reads and writes them; views move none.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hanse.data.packed import lengths
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.learners import flops
from hanse.learners.training.rollouts import rolled_out

Loss = Callable[[], Tensor]
REPEATS = 3  # timed passes at least
MOST, BUDGET = 20, 0.5  # passes at most, and seconds after which no further one begins
STATE = 28  # bytes for each number of AdamW in float32: p, g, m and v read; p, m and v written


@dataclass(frozen=True)
class PassCost:
    """Floating-point operations of a pass, bytes that it reads and writes, and its operators."""

    flops: float
    bytes: float
    operators: float

    def scaled(self, share: float) -> "PassCost":
        """The cost with another number of tokens, whose operators are as many."""
        return PassCost(self.flops * share, self.bytes * share, self.operators)


@dataclass(frozen=True)
class StepCost:
    """The cost of an optimizer step on one batch.

    tokens: of the batch. The optimizer's bytes are those of AdamW; it hardly computes.
    """

    forward: PassCost
    backward: PassCost
    optimizer: PassCost
    tokens: float

    @property
    def flops(self) -> float:
        """The operations of all passes."""
        return self.forward.flops + self.backward.flops + self.optimizer.flops

    def of(self, tokens: float, batches: int = 1) -> "StepCost":
        """The cost of a step on so many batches of so many tokens each."""
        share = tokens / self.tokens
        forward, backward = (
            PassCost(batches * own.flops, batches * own.bytes, batches * own.operators)
            for own in (self.forward.scaled(share), self.backward.scaled(share))
        )
        return StepCost(forward, backward, self.optimizer, batches * tokens)


class _Moved(TorchDispatchMode):
    """Adds up the bytes of operators' inputs and outputs, and the number of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.operators = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
            self.operators += 1
        return result


def _is_view(func: Any) -> bool:
    """True for an operator that returns a view of its input."""
    returns = func._schema.returns
    views = any(own.alias_info and not own.alias_info.is_write for own in returns)
    return bool(views or str(func).startswith("aten._unsafe_view"))


def count(loss: Loss, parameters: Sequence[Tensor], tokens: float) -> StepCost:
    """The cost of a step, from one forward and one backward pass; gradients stay as they are.

    loss: computes the loss of a batch of so many tokens. parameters: those that are trained;
    without any, a step is two forward passes.
    """
    counter, moved = FlopCounterMode(display=False, custom_mapping=flops.rules()), _Moved()

    def so_far() -> PassCost:
        return PassCost(counter.get_total_flops(), moved.bytes, moved.operators)

    with torch.random.fork_rng(), counter, moved:
        value = loss()
        forward = so_far()
        _second(loss, value, parameters)
        both = so_far()
    trained = sum(p.numel() for p in parameters)
    backward = PassCost(
        both.flops - forward.flops,
        both.bytes - forward.bytes,
        both.operators - forward.operators,
    )
    return StepCost(forward, backward, PassCost(0.0, STATE * trained, len(parameters)), tokens)


def _second(loss: Loss, value: Tensor, parameters: Sequence[Tensor]) -> None:
    """The second pass of a step: backward, or forward again if there are no gradients."""
    if parameters:
        torch.autograd.grad(value, list(parameters), allow_unused=True)
    else:
        loss()


def seconds(loss: Loss, parameters: Sequence[Tensor], device: torch.device) -> tuple[float, float]:
    """The seconds of a forward and of a backward pass on this machine, the fastest of some each.

    One pass before them is not timed. The fastest counts, since other programs disturb the others.
    """
    _timed(loss, parameters, device)
    timed: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(timed) < REPEATS or (len(timed) < MOST and time.perf_counter() - start < BUDGET):
        timed.append(_timed(loss, parameters, device))
    return min(forward for forward, _ in timed), min(backward for _, backward in timed)


def _timed(loss: Loss, parameters: Sequence[Tensor], device: torch.device) -> tuple[float, float]:
    with torch.random.fork_rng():
        start = _now(device)
        value = loss()
        middle = _now(device)
        _second(loss, value, parameters)
        return middle - start, _now(device) - middle


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def saved_bytes(loss: Loss, weights: Sequence[Tensor]) -> int:
    """The bytes of tensors that a forward pass keeps for the backward pass, without the weights.

    Tensors that share memory count once.
    """
    known = {_memory(weight) for weight in weights}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (memory := _memory(tensor)) not in known:
            kept[memory] = max(kept.get(memory, 0), tensor.numel() * tensor.element_size())
        return tensor

    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        value = loss()  # keeps alive what is saved, so that no memory is used twice
    del value
    return sum(kept.values())


def _memory(tensor: Tensor) -> int:
    """The identity of a tensor's memory, which its views share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # a tensor of oneDNN has no storage
        return id(tensor)


def typical(
    learner: Learner, objective: Objective, examples: Sequence[Any], rows: int
) -> tuple[Loss, list[Tensor], float]:
    """(loss, trained parameters, tokens) of a batch of so many examples around the median length.

    With fewer examples the batch is smaller.
    """
    sizes = lengths(examples)
    ordered = sorted(range(len(sizes)), key=sizes.__getitem__)
    first = max(0, len(ordered) - rows) // 2
    chosen = [examples[at] for at in ordered[first : first + rows]]
    return _batch(learner, objective, chosen)


def longest(
    learner: Learner, objective: Objective, examples: Sequence[Any], rows: int
) -> tuple[Loss, list[Tensor], float]:
    """(loss, trained parameters, tokens) of a batch of the longest examples."""
    sizes = lengths(examples)
    ordered = sorted(range(len(sizes)), key=sizes.__getitem__)
    return _batch(learner, objective, [examples[at] for at in ordered[-rows:]])


def _batch(
    learner: Learner, objective: Objective, examples: Sequence[Any]
) -> tuple[Loss, list[Tensor], float]:
    batch = learner.batch(rolled_out(objective, learner, list(examples), seed=0))
    parameters: list[Tensor] = list(learner.parameters().values())
    return (lambda: objective.loss(learner, batch)), parameters, batch.tokens
