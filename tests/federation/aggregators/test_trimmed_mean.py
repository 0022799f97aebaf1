"""The coordinate-wise trimmed mean against loops of its own, and against Flower's."""

import numpy as np
import pytest
from flwr.server.strategy.aggregate import aggregate_trimmed_avg

from collected_rounds import combined, honest
from hanse.federation.aggregators.trimmed_mean import TrimmedMean


@pytest.mark.parametrize(("clients", "attackers"), [(1, 0), (3, 1), (10, 3), (11, 5), (4, 0)])
def test_each_coordinate_is_the_mean_without_both_ends(clients: int, attackers: int) -> None:
    rows = honest(clients)
    expected = []
    for column in rows.T:
        left = sorted(column)
        for _ in range(attackers):
            left.remove(max(left))
            left.remove(min(left))
        expected.append(sum(left) / len(left))
    rule = TrimmedMean(attackers=attackers)
    np.testing.assert_allclose(combined(rule, rows), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("attackers", [0, 1, 2, 4])
def test_it_is_flowers(attackers: int) -> None:
    rows = honest(10, seed=1)
    [expected] = aggregate_trimmed_avg([([row], 7) for row in rows], attackers / 10)
    result = combined(TrimmedMean(attackers=attackers), rows)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
