"""Chooses the number of clients that train together, by this machine's memory and a measurement.

With small batches a processor waits for the frozen weights, and the rows of several clients cost
hardly more than those of one. Large batches keep it busy by themselves, and together only need more
memory.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from hanse.learners.batched_clients import train
from hanse.learners.batched_clients.member import Member
from hanse.learners.training.out_of_memory import (
    free_memory,
    is_shortage,
    refusal,
    release_memory,
    shortage_as_user_error,
)

MOST = 64  # clients; no measurement has shown a gain beyond that
GAIN = 1.03  # more clients must be faster by this factor, or fewer are taken
BUDGET = 0.05  # share of a run's training that may go into measuring
MEMORY = 0.6  # share of the free memory that clients may fill
FEW = 128  # tokens of one client's batch; smaller batches have gained on every CPU
OPTIMIZED = 6  # float32 numbers for each trained one: it, its gradient, Adam's two, start, result


def best(members: Sequence[Member], steps: int) -> int:
    """The number of clients that train most tokens a second and fit into memory.

    members: all clients that may train together.
    steps: optimizer steps of all clients in the whole run.
    """
    short = [_short(member) for member in members[:MOST]]
    most = fitting(short, len(short))
    if most == 1:
        return 1
    return choose(most, _Trial(short), _tokens(short[0]), steps, _device(short))


def fitting(members: Sequence[Member], wanted: int) -> int:
    """The number of clients that the free memory holds, at most `wanted`."""
    free = MEMORY * free_memory(_device(members))
    return max(1, min(wanted, int(free / _bytes(members[0]))))


def choose(
    most: int,
    seconds: Callable[[int], float],
    tokens: float,
    steps: int,
    device: torch.device,
) -> int:
    """The number of clients: a power of two, or `most`. It is doubled as long as that is faster.

    seconds: measures a step of this number of clients, and divides by it. tokens: of one client's
        batch; if a run is too short for a measurement, they decide.
    """
    spent = fastest = seconds(1)
    size, best = 1, 1
    while size < most:
        size = min(2 * size, most)
        if spent + size * fastest > BUDGET * steps * fastest:
            return best if best > 1 else _usual(most, tokens, device)
        each = seconds(size)
        spent += size * each
        if each * GAIN > fastest:
            return best
        best, fastest = size, each
    return best


def _usual(most: int, tokens: float, device: torch.device) -> int:
    """The number of clients that was best on other machines."""
    if device.type == "cpu" and tokens >= FEW:
        return 1
    return min(most, 16)


class _Trial:
    """Measures the seconds of one step of each client if a number of clients train together.

    They are infinite if memory does not hold the clients. A GPU does each step twice, and the
    second counts: in the first the driver allocates memory, which happens once in a run.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self(1)  # the first call is slower than others

    def __call__(self, size: int) -> float:
        warm_up = _device(self._members).type == "cuda"
        try:
            if warm_up:
                self._step(size)
            return self._step(size) / size
        except Exception as error:
            if not is_shortage(error):
                raise
            if size == 1:
                raise refusal(error) from None
        release_memory(_device(self._members))
        return math.inf

    def _step(self, size: int) -> float:
        """The seconds of one step of the first `size` clients."""
        start = time.perf_counter()
        train.train_at_once([replace(member) for member in self._members[:size]])
        return time.perf_counter() - start


def _short(member: Member) -> Member:
    """A copy of a client that does one small step, whose result is not used."""
    settings = replace(
        member.job.settings,
        max_steps=1,
        num_train_epochs=None,
        gradient_accumulation_steps=1,
        optimizer_state="reset",
    )
    return replace(
        member, job=replace(member.job, settings=settings, penalty=None, optimizer_state={})
    )


def _device(members: Sequence[Member]) -> torch.device:
    """The device that all members share."""
    return members[0].backbone.device


def _tokens(member: Member) -> float:
    """The mean number of tokens in a client's batch."""
    lengths = member.job.learner.lengths(member.job.split)
    mean = sum(lengths) / len(lengths)
    return mean * min(len(lengths), member.job.settings.per_device_train_batch_size)


def _bytes(member: Member) -> int:
    """The memory of one more client: its optimizer, and its largest batch's activations."""
    trained = sum(tensor.numel() for tensor in member.tensors.values())
    lengths = member.job.learner.lengths(member.job.split)
    longest = max(lengths) * member.job.settings.per_device_train_batch_size
    return OPTIMIZED * 4 * trained + int(longest * _saved(member))


def _saved(member: Member) -> float:
    """The bytes of a token that stay in memory between the forward and the backward pass."""
    job = member.job
    [batch] = job.batches(0, job.sample_batches()[0][:1])
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen.update(_places(tensor))
        return tensor.detach()  # a tensor with its graph would be in a cycle, and never be freed

    with (
        shortage_as_user_error(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        job.objective.loss(job.learner, batch)
    frozen = {place for p in member.backbone.model.parameters() for place in _places(p)}
    saved = sum(size for place, size in seen.items() if place not in frozen)
    rows, width = batch.ids.shape
    return float(saved / (rows * width))


def _places(tensor: Any) -> dict[int, int]:
    """The addresses of a tensor's storages and their bytes; a quantized one has several."""
    if is_traceable_wrapper_subclass(tensor):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return {place: size for part in parts for place, size in _places(part).items()}
    storage = tensor.untyped_storage()
    return {storage.data_ptr(): storage.nbytes()}
