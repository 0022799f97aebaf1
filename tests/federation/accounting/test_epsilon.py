"""ε of releases: never below Google's accountant, close to it, and monotone."""

import math
from itertools import pairwise
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.federation.accounting import epsilon as accounting
from hanse.federation.accounting.epsilon import GaussianReleases, by_renyi_divergence, epsilon

DELTA = 1e-5
# q, σ, T: ε at δ = 1e-5 by dp-accounting 0.6.
REFERENCES = {
    (0.01, 1.0, 1000): 1.8289,
    (0.01, 0.8, 1000): 3.1414,
    (256 / 60000, 1.1, 14062): 2.3905,
    (0.1, 1.0, 100): 7.0466,
    (1.0, 10.0, 100): 4.3772,
    (0.05, 1.0, 40): 2.4681,
}
TRIPLES = [
    *((q, z, t) for q in (0.002, 0.05, 0.3) for z in (0.8, 1.5) for t in (1, 40, 200)),
    *((1.0, z, t) for z in (1.0, 3.0, 8.0, 40.0) for t in (1, 10, 60)),
]


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("extras"):
        pytest.importorskip("dp_accounting")


def by_google(q: float, z: float, t: int, delta: float = DELTA) -> float:
    """What dp-accounting says without any setting."""
    import dp_accounting as google

    event: Any = google.GaussianDpEvent(z)
    event = google.PoissonSampledDpEvent(q, event) if q < 1 else event
    return float(google.pld.PLDAccountant().compose(event, t).get_epsilon(delta))


@pytest.mark.extras
@pytest.mark.parametrize(("triple", "expected"), REFERENCES.items())
def test_references(triple: tuple[float, float, int], expected: float) -> None:
    q, z, t = triple
    assert epsilon([GaussianReleases(z, q, t)], DELTA) == pytest.approx(expected, rel=0.01)


@pytest.mark.extras
@pytest.mark.parametrize("triple", TRIPLES)
def test_never_below_google_and_at_most_five_percent_above(
    triple: tuple[float, float, int],
) -> None:
    q, z, t = triple
    ours, theirs = epsilon([GaussianReleases(z, q, t)], DELTA), by_google(q, z, t)
    assert theirs * (1 - 1e-9) <= ours <= 1.05 * theirs + 1e-9


def test_thirty_triples() -> None:
    assert len(TRIPLES) == 30


@pytest.mark.extras
def test_gaussian_noise_without_sampling_has_its_exact_figure() -> None:
    """Balle and Wang 2018, 1805.06530, theorem 8, inverted: δ of the ε that we give is δ."""
    from scipy.stats import norm

    for z in (0.7, 2.0, 9.0):
        for t in (1, 20):
            spent, mu = epsilon([GaussianReleases(z, 1.0, t)], DELTA), math.sqrt(t) / z
            delta = norm.cdf(mu / 2 - spent / mu)
            delta -= math.exp(spent) * norm.cdf(-mu / 2 - spent / mu)
            assert delta == pytest.approx(DELTA, rel=0.02)


@pytest.mark.extras
def test_monotone_in_rounds_sampling_and_noise() -> None:
    def spent(z: float = 1.0, q: float = 0.1, t: int = 50) -> float:
        return epsilon([GaussianReleases(z, q, t)], DELTA)

    for rising in (
        [spent(t=t) for t in (1, 10, 50, 200)],
        [spent(q=q) for q in (0.01, 0.1, 0.5, 1.0)],
        [spent(z=z) for z in (4.0, 2.0, 1.0, 0.5)],
    ):
        assert all(less < more for less, more in pairwise(rising))


@pytest.mark.extras
def test_rounds_of_different_noise_compose() -> None:
    parts = [GaussianReleases(2.0), GaussianReleases(4.0, 1.0, 3), GaussianReleases(1.0, 0.1, 5)]
    spent = epsilon(parts, DELTA)
    assert spent == epsilon([*reversed(parts)], DELTA)
    assert epsilon(parts[:2], DELTA) < spent < epsilon([GaussianReleases(1.0, 1.0, 9)], DELTA)
    one = epsilon([GaussianReleases((1 / 4 + 3 / 16) ** -0.5)], DELTA)
    assert epsilon(parts[:2], DELTA) == pytest.approx(one, rel=1e-9)
    apart = [GaussianReleases(1.0, 0.1)] * 5
    assert epsilon(apart, DELTA) == epsilon([GaussianReleases(1.0, 0.1, 5)], DELTA)


@pytest.mark.extras
def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert epsilon([], DELTA) == 0
    assert epsilon([GaussianReleases(1.0, 0.0, 9), GaussianReleases(1.0, 1.0, 0)], DELTA) == 0
    assert epsilon([GaussianReleases(0.0), GaussianReleases(9.0)], DELTA) == math.inf


@pytest.mark.extras
def test_extreme_noise_is_quick_and_still_bounded() -> None:
    assert epsilon([GaussianReleases(1e-9)], DELTA) == math.inf
    for z in (2e-3, 0.01, 1e4):
        release = [GaussianReleases(z)]
        spent = epsilon(release, DELTA)
        assert math.isfinite(spent) and spent <= by_renyi_divergence(release, DELTA) * 1.01


@pytest.mark.extras
def test_accountants_that_disagree_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "by_renyi_divergence", lambda releases, delta: 0.1)
    with pytest.raises(RuntimeError, match="two accountants disagree"):
        epsilon([GaussianReleases(1.234)], DELTA)


def test_without_the_package_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.errors.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'dp_accounting.*"hanse\[privacy\]", or'):
        epsilon([GaussianReleases(1.0)], DELTA)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 9e-13, math.nan])
def test_impossible_delta(delta: float) -> None:
    with pytest.raises(ValueError, match="is not between"):
        epsilon([GaussianReleases(1.0)], delta)


@pytest.mark.parametrize("values", [(-1.0, 1.0), (math.nan, 1.0), (1.0, 1.5), (1.0, math.nan)])
def test_impossible_releases(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is not"):
        GaussianReleases(*values)
