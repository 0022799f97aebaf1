"""Top-k logits under other names: what the definition says, and nothing lost for the identity."""

import math
import random

import pytest
import torch
from torch import Tensor

from hanse.tensors.top_k import check, dense, top_k
from hanse.tensors.top_k_transfer import transfer

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def _logits(rows: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(rows * 100 + classes)
    return (3 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)).to(dtype)


def by_definition(logits: list[float], k: int, mapping: list[int], classes: int) -> list[float]:
    """Probabilities over the other classes, one row, from all logits of the source."""
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    rest = sum(math.exp(logits[index]) for index in order[k:])
    kept: dict[int, float] = {}
    for index in order[:k]:
        if mapping[index] < 0:
            rest += math.exp(logits[index])
        else:
            kept.setdefault(mapping[index], math.exp(logits[index]))
    others = classes - len(kept)
    total = sum(kept.values()) + (rest if others else 0)
    return [kept.get(index, rest / max(others, 1)) / total for index in range(classes)]


@pytest.mark.parametrize(
    ("source", "target", "k"), [(9, 9, 4), (9, 5, 4), (5, 9, 5), (9, 4, 7), (6, 40, 6), (3, 2, 1)]
)
@pytest.mark.parametrize("seed", range(4))
def test_probabilities_are_those_of_the_definition(
    source: int, target: int, k: int, seed: int
) -> None:
    draw = random.Random(seed)
    logits, labels = _logits(7, source), torch.arange(9) % target
    mapping = [draw.randint(-1, target - 1) for _ in range(source)]
    rows = torch.tensor(draw.choices(range(7), k=9))
    result = transfer(top_k(logits, k), rows, torch.tensor(mapping), labels, target)
    check(result, target)
    assert result["values"].shape == (9, min(k, target))
    expected = [by_definition(logits[row].tolist(), k, mapping, target) for row in rows.tolist()]
    torch.testing.assert_close(dense(result, target).exp(), torch.tensor(expected).double())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [1, 4, 9, 12])
def test_the_identity_changes_no_bit(dtype: torch.dtype, k: int) -> None:
    parts = top_k(_logits(6, 9, dtype), k)
    result = transfer(parts, torch.arange(6), torch.arange(9), torch.zeros(6), 9)
    assert result.keys() == parts.keys()
    for name, part in parts.items():
        assert result[name].dtype == part.dtype
        assert torch.equal(result[name], part)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("source_rows", [0, 2])
def test_a_label_without_a_row_has_all_the_probability(
    dtype: torch.dtype, source_rows: int
) -> None:
    parts = top_k(_logits(source_rows, 9, dtype), 3)
    labels, rows = torch.tensor([0, 6, 2]), torch.full((3,), -1)
    result = transfer(parts, rows, torch.arange(9) % 7, labels, 7)
    check(result, 7)
    assert (result["values"][:, 0] == 0).all()
    torch.testing.assert_close(dense(result, 7).exp().double(), torch.eye(7).double()[labels])


def test_of_several_with_one_counterpart_the_largest_stays() -> None:
    parts = top_k(torch.tensor([[1.0, 5.0, 4.0, 0.0, 2.0]]), 3)  # the classes 1, 2 and 4
    mapping = torch.tensor([0, 3, 3, 1, 2])
    result = transfer(parts, torch.zeros(1), mapping, torch.zeros(1), 6)
    assert result["indices"].tolist() == [[3, 2, 0]]
    assert result["values"][0, :2].tolist() == [5, 2]


def test_a_class_that_is_not_listed_has_no_counterpart() -> None:
    """Models often have more outputs than their tokenizer has tokens."""
    parts = top_k(torch.tensor([[1.0, 0.0, 5.0]]), 3)
    result = transfer(parts, torch.zeros(1), torch.arange(2), torch.zeros(1), 2)
    assert result["indices"].tolist() == [[0, 1]]
    assert "rest" not in result


@pytest.mark.parametrize("k", [6, 9, 30])
def test_more_logits_than_the_source_has_are_filled_up(k: int) -> None:
    """Its three classes are all that is known; the others share what has no counterpart."""
    logits, mapping = _logits(4, 3), [7, -1, 2]
    args = torch.arange(4), torch.tensor(mapping), torch.zeros(4), 9
    result = transfer(top_k(logits, 3), *args, k)
    check(result, 9)
    assert result["values"].shape == (4, min(k, 9))
    expected = [by_definition(row, 3, mapping, 9) for row in logits.tolist()]
    torch.testing.assert_close(dense(result, 9).exp(), torch.tensor(expected).double())


def test_what_comes_in_is_not_changed_and_no_labels_give_no_rows() -> None:
    parts = top_k(_logits(2, 9), 3)
    before = {name: part.clone() for name, part in parts.items()}
    transfer(parts, torch.tensor([-1, 1]), torch.zeros(9), torch.tensor([1, 2]), 9)
    assert all(torch.equal(parts[name], part) for name, part in before.items())
    none = transfer(parts, torch.zeros(0), torch.arange(9), torch.zeros(0), 9)
    check(none, 9)
    assert none["values"].shape == (0, 3)
