"""The noise that a budget of ε needs, and the rounds that it pays for."""

import math
from collections.abc import Callable
from functools import lru_cache

from hanse.errors import UserError
from hanse.federation.accounting.epsilon import STEP, GaussianReleases, by_renyi_divergence, epsilon
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from scipy import optimize

LEAST_NOISE, MOST_NOISE = 0.02, 10_000.0  # noise multipliers that are considered
ACCURACY = 1e-3  # relative, of a noise multiplier
WITHIN = 1.003  # noise that is found ÷ the least that is needed, at most
MOST_ROUNDS = 10**7
COARSE, COARSEST = 2.5e-4, 5e-3  # step of the privacy loss, by ε, in the search for the noise
CLOSE = 0.93  # the noise that loss distributions ask for ÷ that of Rényi divergences, roughly


@lru_cache(maxsize=1024)
def noise_for(
    budget: float, delta: float, rounds: int, sampling: float = 1.0, steps: int = 1
) -> float:
    """The least noise multiplier, within 0.3 %, with which so many rounds cost at most ε.

    budget: the ε. sampling: as in `GaussianReleases`. steps: releases of each round.
    Raises UserError if no noise multiplier up to MOST_NOISE is enough, and says for how many rounds
    the largest would be.
    """
    count, coarse = rounds * steps, min(max(STEP, COARSE * budget), COARSEST)

    def excess(logarithm: float, step: float = coarse) -> float:
        spent = epsilon([GaussianReleases(math.exp(logarithm), sampling, count)], delta, step)
        return math.log(max(spent, 1e-12) / budget)

    if excess(math.log(MOST_NOISE)) > 0:
        affordable = rounds_within(budget, delta, MOST_NOISE, sampling, steps)
        raise UserError(
            f"an ε of {budget:g} at δ = {delta:g} cannot be kept in {rounds:,} rounds by a noise "
            f"multiplier up to {MOST_NOISE:,g}; {advice(affordable)}."
        )
    guess = _guess(budget, delta, count, sampling)
    found = _root(excess, math.log(min(MOST_NOISE, max(LEAST_NOISE, guess))))
    noise = _rounded_up(math.exp(found))
    while excess(math.log(noise), STEP) > 0:
        noise = _rounded_up(noise * (1 + ACCURACY))
    return noise


def _guess(budget: float, delta: float, count: int, sampling: float) -> float:
    """A noise multiplier near the one that so many releases need."""
    if sampling == 1:
        return math.sqrt(2 * count * math.log(1.25 / delta)) / budget

    def excess(logarithm: float) -> float:
        release = GaussianReleases(math.exp(logarithm), sampling, count)
        return math.log(max(by_renyi_divergence([release], delta), 1e-12) / budget)

    low, high = math.log(LEAST_NOISE), math.log(MOST_NOISE)
    if excess(low) <= 0:
        return LEAST_NOISE
    # Rényi divergences ask for more noise than loss distributions, and are much faster.
    return CLOSE * math.exp(optimize.brentq(excess, low, high, xtol=0.01))


def rounds_within(
    budget: float, delta: float, noise_multiplier: float, sampling: float, steps: int = 1
) -> int:
    """The most rounds, up to MOST_ROUNDS, that cost at most ε; may be 0.

    steps: releases of each round.
    """

    def fits(rounds: int) -> bool:
        releases = GaussianReleases(noise_multiplier, sampling, rounds * steps)
        return epsilon([releases], delta) <= budget

    low, high = 0, 1
    while high < MOST_ROUNDS and fits(high):
        low, high = high, min(2 * high, MOST_ROUNDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def advice(affordable: int) -> str:
    """The way out for a budget that pays for so many rounds."""
    if affordable:
        return f"it pays for {affordable:,} rounds: set rounds={affordable}, or raise epsilon"
    return "it does not pay for a single round: raise epsilon"


def _root(excess: Callable[[float], float], guess: float) -> float:
    """The logarithm of a noise multiplier at which a decreasing function is 0, or LEAST_NOISE."""
    step, low, high = math.log(1.1), guess, guess
    while excess(low) <= 0:
        if low <= math.log(LEAST_NOISE):
            return math.log(LEAST_NOISE)
        low, high, step = max(low - step, math.log(LEAST_NOISE)), low, 2 * step
    while excess(high) > 0:
        low, high, step = high, min(high + step, math.log(MOST_NOISE)), 2 * step
    return float(optimize.brentq(excess, low, high, xtol=ACCURACY))


def _rounded_up(noise: float) -> float:
    """A noise multiplier of four digits, not below `noise`."""
    unit = 10.0 ** (math.floor(math.log10(noise)) - 3)
    return float(f"{math.ceil(noise / unit * (1 - 1e-12)) * unit:.4g}")
