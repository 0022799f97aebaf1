"""How many clients train best together on this machine: by its memory, and a short measurement.

Small batches leave a processor waiting for the frozen weights, so that several clients' rows cost
hardly more than one's; large ones keep it busy by themselves, and together only need more memory.
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
    is_shortage,
    refusal,
    release_memory,
    shortage_as_user_error,
)
from hanse.observability.memory import available_memory

MOST = 64  # clients; beyond that nothing was seen to gain
GAIN = 1.03  # a larger cohort must be faster by this, or the smaller one is taken
BUDGET = 0.03  # share of a run's training that may go into measuring
MEMORY = 0.6  # share of the free memory that a cohort may fill
FEW = 128  # tokens of one client's batch below which cohorts were seen to pay on a processor
OPTIMIZED = 6  # float32 numbers for each trained one: it, its gradient, Adam's two, start, result


def best(members: Sequence[Member], steps: int) -> int:
    """The size that trains most tokens a second and fits into memory.

    members: clients as they would train, as many as may train together.
    steps: optimizer steps of all clients in the whole run.
    """
    short = [_short(member) for member in members[:MOST]]
    most = fitting(short, len(short))
    if most == 1:
        return 1
    return choose(most, _Trial(short), _tokens(short[0]), steps, _device(short))


def fitting(members: Sequence[Member], wanted: int) -> int:
    """At most `wanted` clients, as many as the free memory holds."""
    free = MEMORY * _free(_device(members))
    return max(1, min(wanted, int(free / _bytes(members[0]))))


def choose(
    most: int,
    seconds: Callable[[int], float],
    tokens: float,
    steps: int,
    device: torch.device,
) -> int:
    """A power of two, or `most`: doubled as long as that pays.

    seconds: measures one step of so many clients, for each of them; tokens: of one client's batch.
    A run that is too short to measure anything goes by its tokens.
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
    """What was good on other machines."""
    if device.type == "cpu" and tokens >= FEW:
        return 1
    return min(most, 16)


class _Trial:
    """Seconds that one step of each client takes when so many train together.

    More than memory holds take forever. A GPU does a step twice, and the second counts: the first
    of a size asks the driver for its memory, which a run does once.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self(1)  # whatever happens at the first call only

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
        start = time.perf_counter()
        train.attempt([replace(member) for member in self._members[:size]])
        return time.perf_counter() - start


def _short(member: Member) -> Member:
    """A client that does one small step; what it learns is thrown away."""
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
    return members[0].backbone.device


def _tokens(member: Member) -> float:
    """Tokens of a client's batch, on average."""
    lengths = member.job.learner.lengths(member.job.split)
    mean = sum(lengths) / len(lengths)
    return mean * min(len(lengths), member.job.settings.per_device_train_batch_size)


def _bytes(member: Member) -> int:
    """What one more client needs: its optimizer, and what its largest batch leaves for backward."""
    trained = sum(tensor.numel() for tensor in member.tensors.values())
    lengths = member.job.learner.lengths(member.job.split)
    longest = max(lengths) * member.job.settings.per_device_train_batch_size
    return OPTIMIZED * 4 * trained + int(longest * _saved(member))


def _saved(member: Member) -> float:
    """Bytes that a token leaves in memory between the forward and the backward pass."""
    job = member.job
    [batch] = job.batches(job.sample_batches()[0][:1])
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen.update(_places(tensor))
        return tensor.detach()  # itself, it would hold its own graph, which holds it: for ever

    with (
        shortage_as_user_error(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        job.objective.loss(job.learner, batch)
    frozen = {place for p in member.backbone.model.parameters() for place in _places(p)}
    held = sum(size for place, size in seen.items() if place not in frozen)
    rows, width = batch.ids.shape
    return float(held / (rows * width))


def _places(tensor: Any) -> dict[int, int]:
    """Where a tensor's bytes lie, and how many; a quantized one consists of several."""
    if is_traceable_wrapper_subclass(tensor):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return {place: size for part in parts for place, size in _places(part).items()}
    storage = tensor.untyped_storage()
    return {storage.data_ptr(): storage.nbytes()}


def _free(device: torch.device) -> int:
    """Bytes of memory that are free."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return available_memory()
