"""Which size is taken, from what was measured and from the memory there is."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from clients import client, rows
from hanse.learners.batched_clients import size as cohort_size
from hanse.learners.batched_clients.size import best, choose, fitting
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def machine(seconds: dict[int, float]) -> tuple[Callable[[int], float], list[int]]:
    """A machine on which clients take so long each, and the sizes that it was asked for."""
    asked: list[int] = []

    def measure(size: int) -> float:
        asked.append(size)
        return seconds[size]

    return measure, asked


@pytest.mark.parametrize(
    ("seconds", "most", "chosen"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 8, 4),  # 8 gains less than it must
        ({1: 1.0, 2: 0.6, 3: 0.4}, 3, 3),
        ({1: 1.0, 2: 0.99}, 64, 1),
        ({1: 1.0, 2: 1.3}, 2, 1),
    ],
)
def test_doubles_as_long_as_it_pays(seconds: dict[int, float], most: int, chosen: int) -> None:
    measure, asked = machine(seconds)
    assert choose(most, measure, 50.0, 10_000, CPU) == chosen
    assert asked == list(seconds)


def test_a_short_run_is_not_held_up_by_measuring() -> None:
    for tokens, device, size in ((50.0, CPU, 16), (500.0, CPU, 1), (500.0, GPU, 16)):
        measure, asked = machine({1: 1.0})
        assert choose(40, measure, tokens, 40, device) == size
        assert asked == [1]


def test_what_was_measured_counts_when_the_budget_ends() -> None:
    measure, asked = machine({1: 1.0, 2: 0.6, 4: 0.4})
    assert choose(64, measure, 50.0, 72, CPU) == 2  # 2.2 + 4 × 0.6 is over 0.05 · 72 · 0.6
    assert asked == [1, 2]


def test_memory_bounds_a_cohort(tiny_llama: object, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    members = [client(backbone, f"c{n}", rows(n, 8)).member() for n in range(4)]
    assert fitting(members, 4) == 4
    one = cohort_size._bytes(members[0])
    free = int(one * 2.5 / cohort_size.MEMORY)
    monkeypatch.setattr(cohort_size, "free_memory", lambda _: free)
    assert fitting(members, 4) == 2
    monkeypatch.setattr(cohort_size, "free_memory", lambda _: 0)
    assert best(members, 1000) == 1


def test_measuring_leaves_everything_as_it_was(tiny_llama: object) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    learners = [client(backbone, f"c{n}", rows(n, 8)) for n in range(3)]
    members = [learner.member() for learner in learners]
    before = learners[0].tensors()
    state = torch.get_rng_state()
    assert 1 <= best(members, 10_000) <= 3
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in learners[0].tensors().items():
        assert torch.equal(tensor, before[name])
    assert all(torch.equal(members[0].tensors[name], before[name]) for name in before)


def test_saved_bytes_grow_with_the_batch(tiny_llama: object) -> None:
    """Against what one more row costs, counted by a larger batch."""
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    small = client(backbone, "a", rows(1, 16, 20), per_device_train_batch_size=2).member()
    large = client(backbone, "b", rows(1, 16, 20), per_device_train_batch_size=8).member()
    per_token = cohort_size._saved(large)
    assert cohort_size._saved(small) == pytest.approx(per_token, rel=0.3)
    assert per_token > 2 * 32 * 4 * 7  # each of two layers keeps more than its seven inputs


def test_measuring_leaves_nothing_in_memory(
    tiny_llama: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved tensor that is given back as it is would hold its own graph, which holds it."""
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    member, seen = client(backbone, "a", rows(0, 8, 6)).member(), list[weakref.ref[torch.Tensor]]()
    places = cohort_size._places

    def watched(tensor: torch.Tensor) -> dict[int, int]:
        seen.append(weakref.ref(tensor))
        return places(tensor)

    monkeypatch.setattr(cohort_size, "_places", watched)
    cohort_size._saved(member)
    gc.collect()
    assert seen
    left = [tensor for ref in seen if (tensor := ref()) is not None]
    assert all(tensor.is_leaf for tensor in left)
