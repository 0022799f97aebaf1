"""The coordinate-wise median against loops of its own, and against Flower's."""

import numpy as np
import pytest
from flwr.server.strategy.aggregate import aggregate_median

from collected_rounds import attacked, combined, honest
from hanse.federation.aggregators.coordinate_median import CoordinateMedian


@pytest.mark.parametrize("clients", [3, 4, 10, 11])
def test_each_coordinate_is_the_middle_of_the_sorted_values(clients: int) -> None:
    rows = honest(clients)
    expected = []
    for column in rows.T:
        ordered = sorted(column)
        low, high = ordered[(clients - 1) // 2], ordered[clients // 2]
        expected.append((low + high) / 2)
    np.testing.assert_allclose(combined(CoordinateMedian(), rows), expected, rtol=1e-6)


@pytest.mark.parametrize("clients", [3, 4, 11])
def test_it_is_flowers(clients: int) -> None:
    rows = honest(clients, seed=1)
    [expected] = aggregate_median([([row], 7) for row in rows])
    np.testing.assert_allclose(combined(CoordinateMedian(), rows), expected, rtol=1e-6)


def test_each_coordinate_stays_between_honest_ones() -> None:
    rows = attacked(honest(11), 5)
    result, kept = combined(CoordinateMedian(), rows), rows[:6]
    assert ((kept.min(axis=0) <= result) & (result <= kept.max(axis=0))).all()
