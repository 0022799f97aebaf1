"""Centred clipping against loops of its own."""

import numpy as np
import pytest

from collected_rounds import attacked, combined, honest
from hanse.federation.aggregators.centred_clipping import CentredClipping
from hanse.federation.aggregators.norm_bounding import NormBounding


@pytest.mark.parametrize("radius", [0.5, 6.0, None])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_it_is_its_twin(radius: float | None, steps: int) -> None:
    rows = attacked(honest(10), 2, 30.0)
    centre = np.zeros(rows.shape[1])
    for _ in range(steps):
        apart = rows - centre
        far = np.linalg.norm(apart, axis=1)
        tau = np.median(far) if radius is None else radius
        centre = centre + np.mean(
            [own * min(1.0, tau / length) for own, length in zip(apart, far, strict=True)], axis=0
        )
    result = combined(CentredClipping(radius=radius, steps=steps), rows)
    np.testing.assert_allclose(result, centre, rtol=1e-4, atol=1e-5)


def test_one_step_from_nothing_bounds_norms() -> None:
    rows = attacked(honest(10), 2)
    result = combined(CentredClipping(radius=3.0, steps=1), rows)
    np.testing.assert_allclose(result, combined(NormBounding(norm=3.0), rows), atol=1e-6)


def test_a_large_radius_is_the_mean() -> None:
    rows, weights = honest(5), [1.0, 2.0, 3.0, 4.0, 5.0]
    result = combined(CentredClipping(radius=1e9, weighted=True), rows, weights)
    np.testing.assert_allclose(result, np.average(rows, axis=0, weights=weights), atol=1e-5)
