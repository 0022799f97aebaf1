"""Noise for a budget: enough, and hardly more; rounds that a budget pays for."""

import pytest

from hanse.errors import UserError
from hanse.federation.accounting import calibration
from hanse.federation.accounting.calibration import noise_for, rounds_within
from hanse.federation.accounting.epsilon import GaussianReleases, epsilon

pytestmark = pytest.mark.extras
pytest.importorskip("dp_accounting")
DELTA = 1e-5


@pytest.mark.parametrize(
    ("budget", "rounds", "sampling"),
    [(8.0, 6, 1.0), (0.5, 100, 1.0), (2.0, 40, 0.05), (16.0, 3, 0.5)],
)
def test_the_least_noise(budget: float, rounds: int, sampling: float) -> None:
    noise = noise_for(budget, DELTA, rounds, sampling)
    spent, less = (
        epsilon([GaussianReleases(z, sampling, rounds)], DELTA) for z in (noise, noise / 1.003)
    )
    assert spent <= budget < less
    assert noise == float(f"{noise:.4g}")


def test_hardly_any_noise_for_a_huge_budget() -> None:
    assert noise_for(1e5, DELTA, 1) == calibration.LEAST_NOISE


def test_no_noise_for_a_tiny_budget_says_how_many_rounds_it_pays_for() -> None:
    with pytest.raises(UserError, match=r"ε of 0\.002 .* in 1,000,000 rounds .*: set rounds=(\d+)"):
        noise_for(0.002, DELTA, 1_000_000)
    with pytest.raises(UserError, match="does not pay for a single round"):
        noise_for(1e-9, DELTA, 1)


def test_rounds_within_a_budget() -> None:
    most = rounds_within(4.0, DELTA, 5.0, 1.0)
    assert epsilon([GaussianReleases(5.0, 1.0, most)], DELTA) <= 4.0
    assert epsilon([GaussianReleases(5.0, 1.0, most + 1)], DELTA) > 4.0
    assert rounds_within(0.1, DELTA, 1.0, 1.0) == 0
    assert rounds_within(1e9, DELTA, 1.0, 0.0) == calibration.MOST_ROUNDS - 1


def test_several_releases_in_each_round() -> None:
    assert noise_for(8.0, DELTA, 3, 1.0, 4) == noise_for(8.0, DELTA, 12)
    assert rounds_within(8.0, DELTA, 4.0, 1.0, 5) == rounds_within(8.0, DELTA, 4.0, 1.0) // 5
