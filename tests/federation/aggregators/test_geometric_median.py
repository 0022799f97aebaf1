"""The geometric median against a dense Weiszfeld algorithm, and against what makes it one."""

import numpy as np
import pytest

from collected_rounds import attacked, combined, honest
from hanse.federation.aggregators.geometric_median import GeometricMedian


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


def test_the_unit_vectors_to_all_updates_cancel_out() -> None:
    rows = attacked(honest(11), 4)
    apart = rows - combined(GeometricMedian(), rows)
    units = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    assert np.linalg.norm(units.sum(axis=0)) < 1e-4


def test_a_majority_of_equal_updates_decides() -> None:
    rows = np.concatenate([np.tile(honest(1), (6, 1)), honest(5, seed=3)])
    np.testing.assert_allclose(combined(GeometricMedian(), rows), rows[0], atol=1e-4)
