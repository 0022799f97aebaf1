"""Clients for whom memory does not suffice train in smaller company, and end where they would."""

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import size, train
from hanse.learners.batched_clients.member import Member
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.out_of_memory import is_shortage

BATCH = 4  # rows of each client
Limit = Callable[..., list[int]]

SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 40000000000000000 bytes."
    ),
    MemoryError("Unable to allocate 7.28 TiB for an array"),
]


@pytest.fixture
def backbone(tiny_llama: Path) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Memory that holds so many clients, and runs out in the pass after so many; who has asked."""
    logits = Backbone.logits

    def bound(clients: int, passes: int = 0, error: Exception = SHORTAGES[0]) -> list[int]:
        asked: list[int] = []

        def bounded(self: Backbone, ids: Tensor, *others: Any) -> Tensor:
            if len(ids) > clients * BATCH:
                asked.append(len(ids) // BATCH)
                if asked.count(asked[-1]) > passes:
                    raise type(error)(*error.args)  # a new one holds no frames of earlier tests
            return logits(self, ids, *others)

        monkeypatch.setattr(Backbone, "logits", bounded)
        return asked

    return bound


def members(backbone: Backbone, count: int) -> list[Member]:
    """Clients whose adapters drop, and that go on with an optimizer's state."""
    learners = []
    for number in range(count):
        lora = Lora(r=4, lora_dropout=0.3)
        own = client(backbone, f"c{number}", rows(number, 12), lora, optimizer_state="keep")
        own.fit()
        learners.append(own)
    return [learner.member() for learner in learners]


def outcome(them: list[Member]) -> list[dict[str, Tensor]]:
    train.train(them)
    return [{**member.tensors, **member.job.optimizer_state} for member in them]


def copied(member: Member) -> Member:
    """The same training, from the same state of the optimizer."""
    state = {name: tensor.clone() for name, tensor in member.job.optimizer_state.items()}
    return replace(member, job=replace(member.job, optimizer_state=state))


def near(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("count", "holds", "sizes"), [(4, 2, [4]), (5, 1, [5, 3, 2, 2])])
def test_in_halves_as_without_the_shortage(
    backbone: Backbone,
    limit: Limit,
    caplog: pytest.LogCaptureFixture,
    count: int,
    holds: int,
    sizes: list[int],
) -> None:
    them = members(backbone, count)
    copies = [copied(member) for member in them]
    expected = outcome(copies)
    asked = limit(holds)
    with caplog.at_level(logging.WARNING):
        near(outcome(them), expected)
    assert asked == sizes[: len(asked)]
    assert backbone.max_clients == holds
    assert f"set clients_per_pass={holds}" in caplog.messages[-1]
    caplog.clear()
    outcome(them)  # and from then on no more are tried
    assert asked == sizes[: len(asked)] and not caplog.messages


@pytest.mark.parametrize("error", SHORTAGES)
def test_a_shortage_in_the_middle_leaves_no_trace(
    backbone: Backbone, limit: Limit, error: Exception
) -> None:
    them = members(backbone, 2)
    copies = [copied(member) for member in them]
    expected = outcome(copies)
    limit(1, passes=2, error=error)
    near(outcome(them), expected)


def test_even_if_memory_runs_out_while_results_are_handed_over(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    them = members(backbone, 2)
    copies = [copied(member) for member in them]
    expected = outcome(copies)
    leave, calls = train.BatchedOptimizer.write_back, []

    def failing(self: Any) -> None:
        leave(self)
        calls.append(self)
        if len(calls) == 1:
            self._members[1].job.optimizer_state.clear()
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train.BatchedOptimizer, "write_back", failing)
    near(outcome(them), expected)
    assert len(calls) == 3


def test_the_failed_cohort_is_gone_before_the_next_begins(
    backbone: Backbone, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[StackedAdapters]] = []
    begin = StackedAdapters.__init__

    def noted(self: StackedAdapters, *args: Any) -> None:
        assert all(stack() is None for stack in held)
        held.append(weakref.ref(self))
        begin(self, *args)

    limit(1)
    them = members(backbone, 2)
    monkeypatch.setattr(StackedAdapters, "__init__", noted)
    gc.disable()
    try:
        outcome(them)
    finally:
        gc.enable()
    assert len(held) == 3


def test_one_client_that_does_not_fit_is_refused(backbone: Backbone, limit: Limit) -> None:
    learner: AdaptedModel = client(backbone, "a", rows(1, 12))
    limit(0)
    for work in (learner.fit, lambda: train.train([learner.member()])):
        with pytest.raises(UserError, match=r"20\.00 GiB.*per_device_train_batch_size") as raised:
            work()
        assert raised.value.__suppress_context__
    with pytest.raises(UserError, match="gradient_checkpointing"):
        size.best([learner.member() for _ in range(2)], 10_000)


def test_a_refused_client_leaves_no_gradient_to_the_next(backbone: Backbone, limit: Limit) -> None:
    small = client(backbone, "a", rows(1, 12), per_device_train_batch_size=2)
    own = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2}
    large = replace(client(backbone, "b", rows(2, 12), **own), adapter=small.adapter)
    start = small.tensors()
    expected, _ = small.change(start)
    limit(1, passes=1)  # its first micro-batch leaves gradients
    with pytest.raises(UserError, match="memory"):
        large.fit()
    found, _ = small.change(start)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_other_errors_pass(backbone: Backbone, limit: Limit) -> None:
    limit(0, error=RuntimeError("shapes do not fit"))
    for number in (1, 2):
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            train.train([client(backbone, "a", rows(1, 12)).member() for _ in range(number)])
    assert backbone.max_clients is None


def test_measuring_takes_the_largest_size_that_memory_held(
    backbone: Backbone, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "GAIN", 1e-9)  # whatever is larger is faster
    them = [client(backbone, f"c{n}", rows(n, 12)).member() for n in range(8)]
    asked = limit(3)
    assert size.best(them, 1_000_000) == 2
    assert asked == [4]
    assert backbone.max_clients is None


def test_torch_does_say_so() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**16)
    assert is_shortage(raised.value)
    assert not is_shortage(ValueError("can't allocate memory"))
