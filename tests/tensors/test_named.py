"""Arithmetic on named tensors agrees with numpy in float64."""

import numpy as np
import pytest
import torch

from hanse.tensors.named import (
    BLOCK,
    Bounded,
    RunningMean,
    add,
    blob,
    fits,
    from_bytes,
    is_finite,
    layout,
    map_tensors,
    norm,
    scale,
    squared_distance,
    subtract,
    to_bytes,
    zeros,
)


def groups(count: int, dtype: torch.dtype = torch.float32) -> list[dict[str, torch.Tensor]]:
    """Random tensors under two names."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 4), "b": (5,)}
    return [
        {n: torch.randn(s, generator=draw).to(dtype) for n, s in shapes.items()}
        for _ in range(count)
    ]


def mean(parts: list[dict[str, torch.Tensor]], weights: list[float]) -> dict[str, torch.Tensor]:
    """The running mean of all parts, in order."""
    running = RunningMean()
    for part, weight in zip(parts, weights, strict=True):
        running.add(part, weight)
    return running.value()


def test_the_running_mean_is_numpys_in_float64() -> None:
    parts, weights = groups(7, torch.float64), [1.0, 32.0, 1e-3, 1e6, 5.0, 0.0, 1 / 3]
    found = mean(parts, weights)
    for name in ("a", "b"):
        stacked = np.stack([part[name].numpy() for part in parts])
        expected = np.average(stacked, axis=0, weights=weights)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-14)


def test_small_parts_are_not_lost_in_large_sums() -> None:
    # In float32, 2²⁴ + 1 is 2²⁴: the mean of these would be 2²⁴ / 3.
    parts = [{"a": torch.tensor([value])} for value in (2.0**24, 1.0, 1.0)]
    assert mean(parts, [1.0] * 3)["a"].item() == np.float32((2**24 + 2) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_mean_keeps_the_dtype(dtype: torch.dtype) -> None:
    parts = groups(3, dtype)
    found = mean(parts, [1.0, 2.0, 3.0])
    for name, tensor in found.items():
        exact = sum(k * part[name].double() for k, part in enumerate(parts, 1)) / 6
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact.to(dtype))  # type: ignore[union-attr]


def test_the_mean_of_one_is_that_one_and_leaves_it_alone() -> None:
    [part] = groups(1, torch.float64)
    before = {name: tensor.clone() for name, tensor in part.items()}
    found = mean([part, part], [1.0, 1.0])
    assert all(torch.equal(found[name], part[name]) for name in part)
    assert all(torch.equal(before[name], part[name]) for name in part)


def test_the_same_order_gives_the_same_bits() -> None:
    parts, weights = groups(9), [1 / k for k in range(1, 10)]
    first, again = mean(parts, weights), mean(parts, weights)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_mean_in_blocks_has_the_bits_of_one_over_whole_tensors() -> None:
    draw = torch.Generator().manual_seed(0)
    shape, weights = (3, BLOCK // 2 + 7), [0.3, 7.0, 1e-3]
    parts = [torch.randn(shape, generator=draw) for _ in weights]
    turned = [part.T.contiguous().T for part in parts]  # not in the order of memory
    running = RunningMean()
    total = torch.zeros(shape, dtype=torch.float64)
    for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        running.add({"a": part, "t": turned[index], "one": torch.tensor(weight)}, weight)
        total = part.double() * weight if index == 0 else total.add(part.double(), alpha=weight)
    mean = running.value()
    expected = (total / running.weight).float()
    assert torch.equal(mean["a"], expected) and torch.equal(mean["t"], expected)
    assert float(mean["one"]) == pytest.approx(sum(w * w for w in weights) / sum(weights))


def test_one_value_that_is_not_finite_is_seen_in_any_block() -> None:
    for place in (0, BLOCK - 1, BLOCK, 2 * BLOCK + 4):
        tensor = torch.zeros(2 * BLOCK + 5)
        assert is_finite(tensor)
        tensor[place] = torch.nan if place % 2 else torch.inf
        assert not is_finite(tensor)
    assert is_finite(torch.tensor([2**62])) and is_finite(torch.zeros(0))


def test_a_mean_needs_the_same_names_and_a_weight() -> None:
    running = RunningMean()
    with pytest.raises(ZeroDivisionError, match="positive total weight"):
        running.value()
    running.add({"a": torch.ones(1)}, 0.0)
    with pytest.raises(ZeroDivisionError):
        running.value()
    with pytest.raises(KeyError, match="different names"):
        running.add({"b": torch.ones(1)}, 1.0)


def test_a_mean_is_taken_once() -> None:
    running = RunningMean()
    running.add({"a": torch.ones(1)}, 1.0)
    assert running.value()["a"] == 1.0
    with pytest.raises(RuntimeError, match="has been taken"):
        running.value()
    with pytest.raises(RuntimeError, match="has been taken"):
        running.add({"a": torch.ones(1)}, 1.0)


def test_arithmetic_goes_name_by_name() -> None:
    a, b = groups(2)
    assert torch.equal(add(a, b)["b"], a["b"] + b["b"])
    assert torch.equal(subtract(a, b)["a"], a["a"] - b["a"])
    assert torch.equal(scale(a, -2.0)["a"], a["a"] * -2)
    flat = torch.cat([tensor.flatten() for tensor in a.values()]).double()
    assert norm(a) == pytest.approx(float(flat.norm()), rel=1e-12)
    assert norm({}) == 0.0
    assert float(squared_distance(a, b)) == pytest.approx(norm(subtract(a, b)) ** 2, rel=1e-5)


def test_gradients_flow_through_the_distance() -> None:
    a, b = groups(2)
    live = {name: tensor.requires_grad_() for name, tensor in a.items()}
    squared_distance(live, b).backward()  # type: ignore[no-untyped-call]
    for name, tensor in live.items():
        torch.testing.assert_close(tensor.grad, 2 * (tensor.detach() - b[name]))


def test_groups_that_differ_are_refused_by_name() -> None:
    a, b = groups(2)
    del b["b"]
    with pytest.raises(KeyError, match="differ in b"):
        add(a, b)
    assert map_tensors(torch.neg, {}) == {}


def test_a_layout_has_no_values_and_makes_zeros() -> None:
    [part] = groups(1, torch.bfloat16)
    plan = layout(part)
    assert all(tensor.is_meta for tensor in plan.values())
    for name, tensor in zeros(plan).items():
        assert tensor.dtype == torch.bfloat16 and tensor.shape == part[name].shape
        assert not tensor.any()


def test_only_the_first_dimension_of_a_bounded_tensor_may_be_smaller() -> None:
    form = Bounded(torch.empty(4, 3, device="meta"))
    for fitting in (torch.ones(4, 3), torch.ones(1, 3), torch.ones(0, 3)):
        assert fits(fitting, form)
    for other in (torch.ones(5, 3), torch.ones(4, 2), torch.ones(4), torch.ones(4, 3).double()):
        assert not fits(other, form)
    assert not fits(torch.ones(1, 3), form.largest)
    assert not fits(torch.tensor(1.0), form)


@pytest.mark.parametrize("data", [b"", b"\x00\xff some bytes"])
def test_bytes_are_a_tensor_and_back(data: bytes) -> None:
    tensor = from_bytes(data)
    assert to_bytes(tensor) == data
    assert fits(tensor, blob(len(data))) and fits(tensor, blob(100))
    assert not data or not fits(tensor, blob(len(data) - 1))
