"""Norm bounding against loops of its own."""

import numpy as np
import pytest

from collected_rounds import attacked, combined, honest
from hanse.federation.aggregators.norm_bounding import NormBounding


@pytest.mark.parametrize("norm", [0.5, 6.0, 1e9, None])
def test_it_is_its_twin(norm: float | None) -> None:
    rows = attacked(honest(10), 2, 30.0)
    norms = [float(np.linalg.norm(row)) for row in rows]
    most = np.median(norms) if norm is None else norm
    bounded = [row / max(1.0, own / most) for row, own in zip(rows, norms, strict=True)]
    result = combined(NormBounding(norm=norm), rows)
    np.testing.assert_allclose(result, np.mean(bounded, axis=0), rtol=1e-5, atol=1e-6)


def test_weights_are_those_of_examples_if_wanted() -> None:
    rows, weights = honest(4), [1.0, 2.0, 3.0, 4.0]
    result = combined(NormBounding(norm=1e9, weighted=True), rows, weights)
    expected = np.average(rows, axis=0, weights=weights)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_one_client_moves_the_mean_by_its_share_of_the_bound() -> None:
    rows = honest(10)
    apart = combined(NormBounding(norm=2.0), attacked(rows, 1)) - combined(
        NormBounding(norm=2.0), attacked(rows, 1, 1e-9)
    )
    np.testing.assert_allclose(np.linalg.norm(apart), 2.0 / 10, rtol=1e-4)


def test_updates_of_nothing_stay_nothing() -> None:
    rows = np.zeros((5, 40))
    rows[0] = 1.0
    assert not combined(NormBounding(), rows).any()
