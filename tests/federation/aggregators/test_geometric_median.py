"""The geometric median against a dense Weiszfeld algorithm, and against what makes it one."""

import numpy as np
import pytest
import torch

from collected_rounds import CollectedRound, attacked, combined, honest
from hanse.errors import UserError
from hanse.federation.aggregators.geometric_median import GeometricMedian
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.compatibility.parts import check
from hanse.federation.messages import Update
from hanse.tensors.low_rank import A, B, layers


def twin(rows: np.ndarray, weights: np.ndarray, steps: int, smoothing: float) -> np.ndarray:
    """Algorithm 2 of 1912.13445 on dense rows."""
    share = weights / weights.sum()
    point = share @ rows
    for _ in range(steps):
        near = np.array([max(smoothing, np.linalg.norm(row - point)) for row in rows])
        pull = share / near
        point = pull @ rows / pull.sum()
    return point


@pytest.mark.parametrize("steps", [1, 3, 1000])
@pytest.mark.parametrize("smoothing", [1e-6, 6.0])
def test_it_is_its_twin(steps: int, smoothing: float) -> None:
    rows = attacked(honest(10), 2, 50.0)
    rule = GeometricMedian(steps=steps, smoothing=smoothing)
    expected = twin(rows, np.ones(10), steps, smoothing)
    np.testing.assert_allclose(combined(rule, rows), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_examples_if_wanted() -> None:
    rows, weights = honest(6), np.array([1.0, 2, 3, 4, 5, 6])
    result = combined(GeometricMedian(weighted=True), rows, weights.tolist())
    expected = twin(rows, weights, 1000, 1e-6)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_products_of_factors_are_averaged_by_its_weights() -> None:
    """The algorithm's own mean, with the weights of the median of formed products."""
    draw = torch.Generator().manual_seed(0)
    updates = {
        f"c{place}": Update(
            {"layer" + B: torch.randn(4, 2, generator=draw), "layer" + A: torch.ones(2, 3)},
            weight=place + 1.0,
        )
        for place in range(5)
    }
    numbers = {name: {"rank": 2.0} for name in updates}
    made = CollectedRound(updates, FlexLoRA(), numbers=numbers)
    aggregate = GeometricMedian().aggregate(made)  # type: ignore[arg-type]
    products = [
        layers(update.tensors)["layer"].product().double().flatten().numpy()
        for update in updates.values()
    ]
    expected = twin(np.array(products), np.ones(5), 1000, 1e-6)
    result = layers(aggregate.tensors)["layer"].product().flatten().numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert aggregate.weight == 15 and len(aggregate.clients) == 5


def test_an_algorithm_with_weights_of_its_own_is_refused() -> None:
    """HetLoRA weighs by the norms of products, which a hostile client chooses."""
    check(FlexLoRA(), GeometricMedian())
    with pytest.raises(UserError, match="HetLoRA needs each client's update, which GeometricMed"):
        check(HetLoRA(), GeometricMedian())


def test_the_unit_vectors_to_all_updates_cancel_out() -> None:
    rows = attacked(honest(11), 4)
    apart = rows - combined(GeometricMedian(), rows)
    units = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    assert np.linalg.norm(units.sum(axis=0)) < 1e-4


def test_a_majority_of_equal_updates_decides() -> None:
    rows = np.concatenate([np.tile(honest(1), (6, 1)), honest(5, seed=3)])
    np.testing.assert_allclose(combined(GeometricMedian(), rows), rows[0], atol=1e-4)
