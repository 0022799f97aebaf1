"""The largest logits of a row and the mass of the others: exact where they must be, and checked."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.federation.messages import Reply, Update, validate_update
from hanse.tensors.serialization import MessageError
from hanse.tensors.top_k import (
    GAP,
    check,
    dense,
    layout,
    log_probabilities,
    mean,
    of_classes,
    of_labels,
    top_k,
)

CASES = [(1, 2, 1), (5, 7, 1), (4, 9, 8), (6, 9, 9), (3, 4, 100), (0, 5, 2), (16, 512, 32)]


def logits(rows: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize(("rows", "classes", "k"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_parts_hold_the_largest_and_the_mass_of_the_others(
    rows: int, classes: int, k: int, seed: int
) -> None:
    whole = logits(rows, classes, seed)
    parts, kept = top_k(whole, k), min(k, classes)
    check(parts, classes)
    assert parts["values"].shape == parts["indices"].shape == (rows, kept)
    assert ("rest" in parts) == (k < classes)
    exact = whole.softmax(dim=1)
    spread = dense(parts, classes)
    merged = log_probabilities(parts).exp()
    for row in range(rows):
        order = sorted(range(classes), key=lambda at: -float(whole[row, at]))
        largest, others = order[:kept], order[kept:]
        assert parts["indices"][row].tolist() == largest
        mass = sum(float(exact[row, at]) for at in others)
        wanted = [float(exact[row, at]) for at in largest] + ([mass] if others else [])
        assert merged[row].tolist() == pytest.approx(wanted, abs=1e-12)
        for at in range(classes):
            share = float(exact[row, at]) if at in largest else mass / len(others)
            assert math.exp(spread[row, at]) == pytest.approx(share, abs=1e-12)


def test_keeping_everything_loses_nothing() -> None:
    whole = logits(8, 11, dtype=torch.float32)
    torch.testing.assert_close(dense(top_k(whole, 11), 11), whole.log_softmax(dim=1))


def test_the_divergence_of_what_is_kept_equals_the_formula_and_has_its_gradient() -> None:
    """KL between the distributions with all others as one class; finite differences."""
    teacher, student = logits(3, 6), logits(3, 6, 1).requires_grad_()
    parts = top_k(teacher, 2)

    def divergence(student: Tensor) -> Tensor:
        p, q = (
            log_probabilities(parts),
            log_probabilities(of_classes(student, parts["indices"])),
        )
        return (p.exp() * (p - q)).sum(dim=1).mean()

    assert torch.autograd.gradcheck(divergence, student)
    assert float(divergence(teacher)) == pytest.approx(0, abs=1e-12)
    p, q = teacher.softmax(dim=1), student.detach().softmax(dim=1)
    total = 0.0
    for row in range(3):
        kept = parts["indices"][row].tolist()
        pairs = [(float(p[row, at]), float(q[row, at])) for at in kept]
        pairs.append(tuple(1 - sum(pair[side] for pair in pairs) for side in (0, 1)))  # type: ignore[arg-type]
        total += sum(a * math.log(a / b) for a, b in pairs)
    assert float(divergence(student.detach())) == pytest.approx(total / 3)


@pytest.mark.parametrize(("rows", "classes", "k"), CASES)
def test_the_mean_is_that_of_the_distributions_as_far_as_they_are_known(
    rows: int, classes: int, k: int
) -> None:
    whole, weights = [logits(rows, classes, seed) for seed in range(4)], (1.0, 2.0, 0.5, 3.0)
    parts = [top_k(each, k) for each in whole]
    average = mean(list(zip(weights, parts, strict=True)))
    check(average, classes)
    kept, found = min(k, classes), log_probabilities(average).exp()
    for row in range(rows):
        exact = [0.0] * classes
        for weight, each, part in zip(weights, whole, parts, strict=True):
            for at in part["indices"][row].tolist():
                exact[at] += weight / sum(weights) * float(each.softmax(dim=1)[row, at])
        largest = sorted(exact, reverse=True)[:kept]
        rest = [1 - sum(largest)] if k < classes else []
        assert found[row].tolist() == pytest.approx([*largest, *rest], abs=1e-9)
        assert [exact[at] for at in average["indices"][row].tolist()] == pytest.approx(largest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "classes", "k"), CASES)
def test_bytes_are_those_of_the_formula_and_of_the_layout(
    rows: int, classes: int, k: int, dtype: torch.dtype
) -> None:
    parts = top_k(logits(rows, classes, dtype=dtype), k)
    form = layout(rows, k, classes, dtype)
    validate_update(Update(parts), form)
    assert {n: bound.largest.shape for n, bound in form.items()} == {
        n: part.shape for n, part in parts.items()
    }
    fewer = {name: part[: rows // 2] for name, part in parts.items()}
    validate_update(Update(fewer), form)
    if rows:
        with pytest.raises(MessageError, match="expected at most"):
            validate_update(Update(parts), layout(rows - 1, k, classes, dtype))
    size = dtype.itemsize
    row = k * (size + 4) + size if k < classes else classes * (size + 4)
    assert sum(t.nbytes for t in parts.values()) == rows * row
    sent = [len(Reply("c", "train", 1, Update(tensors)).pack()) for tensors in (parts, {})]
    assert sent[0] - sent[1] - rows * row < 300  # the names


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_infinite_and_tiny_logits_are_near_their_rows_largest(dtype: torch.dtype) -> None:
    """The largest numbers of a type would be all that a norm or a codec's block sees."""
    inf = math.inf
    whole = [[1.0, -inf, -inf, 2.0], [-3.0, -90.0, -200.0, 5.0], [0.0, inf, -inf, 1.0], [-inf] * 4]
    expected = [*torch.tensor(whole[:2]).softmax(1).tolist(), [0, 1, 0, 0]]
    for k in (1, 2, 3, 4):
        parts = top_k(torch.tensor(whole, dtype=dtype), k)
        check(parts, 4)
        assert max(float(t.abs().max()) for n, t in parts.items() if n != "indices") <= GAP
        spread = dense(parts, 4).exp().tolist()
        for row in range(3 if k > 1 else 2):
            kept = parts["indices"][row].tolist()
            wanted = [expected[row][at] for at in kept]
            assert [spread[row][at] for at in kept] == pytest.approx(wanted, abs=1e-2)


def test_what_is_no_number_stays_so() -> None:
    parts = top_k(torch.tensor([[1.0, math.nan, 0.0]]), 2)
    with pytest.raises(MessageError, match="not finite"):
        check(parts, 3)


def test_the_log_probability_of_a_class_is_that_of_all_classes() -> None:
    labels, parts = torch.tensor([0, 6, 3, 2, 5]), top_k(logits(5, 7), 3)
    expected = dense(parts, 7)[torch.arange(5), labels]
    torch.testing.assert_close(of_labels(parts, labels, 7), expected)
    whole = top_k(logits(5, 7), 7)
    torch.testing.assert_close(
        of_labels(whole, labels, 7), dense(whole, 7)[torch.arange(5), labels]
    )


def good() -> dict[str, Tensor]:
    return top_k(logits(3, 5, dtype=torch.float32), 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": None}, "values and the indices of their classes"),
        ({"indices": None}, "values and the indices of their classes"),
        ({"values": torch.zeros(3)}, "in equal shapes"),
        ({"values": torch.zeros(3, 3)}, "in equal shapes"),
        ({"rest": None}, "2 logits of 5 classes with indices, values"),
        ({"more": torch.zeros(3)}, "2 logits of 5 classes with indices, more"),
        ({"values": torch.zeros(3, 0), "indices": torch.zeros(3, 0).int()}, "0 logits of 5"),
        ({"values": torch.zeros(3, 6), "indices": torch.zeros(3, 6).int()}, "6 logits of 5"),
        ({"rest": torch.zeros(2)}, "one rest for each row"),
        ({"rest": torch.zeros(3, 1)}, "one rest for each row"),
        ({"indices": torch.zeros(3, 2).long()}, "indices of 32 bits"),
        ({"values": torch.zeros(3, 2).int()}, "not finite"),
        ({"values": torch.full((3, 2), math.nan)}, "not finite"),
        ({"rest": torch.full((3,), -math.inf)}, "not finite"),
        ({"indices": torch.tensor([[0, 1], [0, 5], [0, 1]]).int()}, "other than 0 to 4"),
        ({"indices": torch.tensor([[0, 1], [0, -1], [0, 1]]).int()}, "other than 0 to 4"),
        ({"indices": torch.tensor([[0, 1], [3, 3], [0, 1]]).int()}, "one class twice"),
    ],
)
def test_what_nobody_makes_is_refused(change: dict[str, Any], said: str) -> None:
    check(good(), 5)
    parts = {name: part for name, part in {**good(), **change}.items() if part is not None}
    with pytest.raises(MessageError, match=said):
        check(parts, 5)
    with pytest.raises(MessageError, match=said):
        dense(parts, 5)


def test_the_order_of_values_does_not_matter() -> None:
    parts = good()
    turned = {**parts, **{name: parts[name].flip(1) for name in ("values", "indices")}}
    torch.testing.assert_close(dense(turned, 5), dense(parts, 5))


def test_no_logits_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="the 0 largest logits are none"):
        top_k(logits(2, 3), 0)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_mean_lists_no_class_twice_although_most_are_impossible(k: int) -> None:
    rows = torch.full((2, 1, 6), -math.inf)
    rows[0, 0, 0] = rows[1, 0, 5] = 10.0
    parts = mean([(1.0, top_k(row, k)) for row in rows])
    check(parts, 6)
    assert {0, 5} <= {*parts["indices"][0].tolist()}
