"""ε of sums of discrete Gaussians: a bound on brute force, and as close as dp-accounting's."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hanse.errors import UserError
from hanse.federation.accounting.concentrated import (
    LEAST_DEVIATION,
    NEARNESS,
    distance,
    epsilon,
    noise_for,
    rounds_within,
    spent,
)

DELTA = 1e-5
Floats = NDArray[np.float64]


def discrete_gaussian(deviation: float, reach: int) -> Floats:
    """Probabilities of −reach … reach."""
    values = np.exp(-((np.arange(-reach, reach + 1) / deviation) ** 2) / 2)
    normal: Floats = values / values.sum()
    return normal


def sum_of(shares: int, deviation: float) -> Floats:
    """Probabilities of the sum of so many discrete Gaussians."""
    one = discrete_gaussian(deviation, math.ceil(20 * deviation))
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    return total


def failing(first: Floats, second: Floats, bound: float) -> float:
    """The least δ at which two distributions are within ε."""
    return float(np.maximum(first - math.exp(bound) * second, 0).sum())


def moved(values: Floats, effect: int) -> tuple[Floats, Floats]:
    """The probabilities with and without an effect of one unit."""
    room = np.zeros(effect)
    return np.concatenate([values, room]), np.concatenate([room, values])


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize(("deviation", "effect"), [(6, 6), (6, 15), (6, 40), (20, 20)])
def test_never_below_brute_force(shares: int, deviation: int, effect: int) -> None:
    with_it, without = moved(sum_of(shares, deviation), effect)
    bound = spent([math.sqrt(shares) * deviation / effect], DELTA)
    assert failing(with_it, without, bound) <= DELTA
    assert failing(with_it, without, 0.8 * bound) > DELTA  # nor far above


@pytest.mark.parametrize("shares", [1, 3])
def test_never_below_brute_force_in_two_releases(shares: int) -> None:
    ours = [moved(sum_of(shares, 6), effect) for effect in (6, 9)]
    both = [np.multiply.outer(first, second) for first, second in zip(*ours, strict=True)]
    bound = spent([math.sqrt(shares) * 6 / effect for effect in (6, 9)], DELTA)
    assert failing(*both, bound) <= DELTA < failing(*both, 0.8 * bound)


@pytest.mark.parametrize("shares", [2, 3, 7])
@pytest.mark.parametrize("deviation", [0.5, 0.7, 1.0])
def test_a_sum_is_as_near_to_one_as_stated(shares: int, deviation: float) -> None:
    total, wide = sum_of(shares, deviation), math.sqrt(shares) * deviation
    reach = len(total) // 2
    one = discrete_gaussian(wide, reach)
    middle = slice(reach - math.ceil(4 * wide), reach + math.ceil(4 * wide) + 1)
    apart = float(np.abs(np.log(total[middle]) - np.log(one[middle])).max())
    bound = distance(shares, deviation)
    assert apart <= bound + 1e-12
    assert apart > bound / 10 or shares > 2 or bound < 1e-8  # more draws smooth it


def test_the_sums_of_a_run_differ_from_one_by_less_than_is_allowed() -> None:
    """10^12 numbers in 10^7 releases of 10^6 shares."""
    apart = distance(10**6, LEAST_DEVIATION) * 1e12 * 1e7
    assert 2 * apart < NEARNESS and math.expm1(apart) < NEARNESS
    assert distance(1, 0.1) == 0
    assert distance(10**6, 1.0) >= 5 * 10**6 * math.exp(-2 * math.pi**2)


@pytest.mark.extras
@pytest.mark.parametrize(("multiplier", "rounds"), [(0.1, 1), (1.0, 60), (3.0, 6), (50.0, 200)])
def test_equals_google_by_renyi_divergences(multiplier: float, rounds: int) -> None:
    google: Any = pytest.importorskip("dp_accounting")
    orders = 1 + np.geomspace(1e-3, 1e5, 1000)
    event = google.GaussianDpEvent(multiplier)
    accountant = google.rdp.RdpAccountant(orders=orders).compose(event, rounds)
    for delta in (1e-3, 1e-9):
        ours, theirs = spent([multiplier] * rounds, delta), accountant.get_epsilon(delta)
        assert theirs * 0.999 - 2 * NEARNESS <= ours <= theirs + 2 * NEARNESS


@pytest.mark.extras
def test_not_far_above_the_privacy_loss_of_gaussian_noise() -> None:
    google: Any = pytest.importorskip("dp_accounting")
    exact = google.pld.PLDAccountant().compose(google.GaussianDpEvent(3.0), 6).get_epsilon(DELTA)
    assert exact < spent([3.0] * 6, DELTA) < 1.1 * exact


@pytest.mark.parametrize("budget", [0.1, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("rounds", [1, 6, 1000])
def test_the_least_noise_that_a_budget_needs(budget: float, rounds: int) -> None:
    noise = noise_for(budget, DELTA, rounds)
    assert spent([noise] * rounds, DELTA) <= budget < spent([noise * 0.998] * rounds, DELTA)
    assert rounds <= rounds_within(budget, DELTA, noise) <= 1.01 * rounds


def test_more_costs_more() -> None:
    def rising(of: Callable[[float], float], *at: float) -> bool:
        values = [of(place) for place in at]
        return values == sorted(values) and len({*values}) == len(values)

    assert rising(lambda rho: epsilon(rho, DELTA), 1e-6, 1e-3, 0.1, 1, 50)
    assert rising(lambda z: spent([1 / z], DELTA), 0.1, 1, 10)
    assert spent([], DELTA) == 0 and epsilon(0, DELTA) == 0
    assert math.isinf(spent([1.0, 0.0], DELTA)) and math.isinf(epsilon(math.inf, DELTA))
    with pytest.raises(ValueError, match="delta 1"):
        epsilon(1.0, 1.0)


def test_a_budget_that_no_noise_keeps() -> None:
    with pytest.raises(UserError, match=r"ε of 0.01 .* in 10,000,000 rounds .*; it pays for"):
        noise_for(0.01, DELTA, 10**7)
