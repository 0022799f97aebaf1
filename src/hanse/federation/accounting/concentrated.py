"""The ε of releases whose noise is a sum of discrete Gaussians, by concentrated privacy.

A release whose noise is one discrete Gaussian of standard deviation z·Δ, where Δ is the largest
effect of one unit, is ρ-zCDP with ρ = 1/(2z²), as with Gaussian noise (Canonne, Kamath, Steinke
2020, 2004.00010); ρ adds up over releases. A sum of discrete Gaussians is none, but its
probabilities differ from those of one by factors between exp(±`distance`), so that the ε of
both differ by hardly anything (`NEARNESS`).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from hanse.errors import UserError
from hanse.federation.accounting.calibration import LEAST_NOISE, MOST_NOISE, MOST_ROUNDS, advice

# The least deviation of a client's noise, in steps of the grid. `distance` times numbers times
# releases is then below 10^-100, unless shares times numbers times releases are above 10^50.
LEAST_DEVIATION = 6
NEARNESS = 1e-9  # of ε, and relative of δ: more than a sum of discrete Gaussians differs from one
TERMS = 100_000  # of the sum in `distance`, beyond which all are bounded by the first one


def epsilon(rho: float, delta: float) -> float:
    """The ε for which ρ-zCDP implies (ε, δ), by the best order α that is found.

    αρ + log(1 − 1/α) + (log(1/δ) − log α)/(α − 1) holds for every α > 1 (Canonne, Kamath, Steinke
    2020, 2004.00010). inf for ρ = inf.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta {delta} is not between 0 and 1")
    if rho <= 0 or math.isinf(rho):
        return 0.0 if rho <= 0 else math.inf
    loss = -math.log(delta)

    def at(logarithm: float) -> float:
        beyond = math.exp(logarithm)  # α − 1
        alpha = 1 + beyond
        return alpha * rho - math.log1p(1 / beyond) + (loss - math.log(alpha)) / beyond

    guess = math.log(loss / rho) / 2
    best = min((guess + step / 20 for step in range(-200, 201)), key=at)
    best = min((best + step / 2000 for step in range(-100, 101)), key=at)
    return max(0.0, at(best))


def spent(multipliers: Sequence[float], delta: float) -> float:
    """The ε of releases with these noise multipliers z together; inf if one has no noise."""
    if not multipliers:
        return 0.0
    rho = math.inf if min(multipliers) <= 0 else sum(0.5 / z**2 for z in multipliers)
    return epsilon(rho, delta * (1 - NEARNESS)) + NEARNESS


def noise_for(budget: float, delta: float, rounds: int) -> float:
    """The least noise multiplier, to four digits, with which so many rounds cost at most ε.

    Raises UserError if none up to MOST_NOISE is enough, and says for how many rounds that would be.
    """
    noise = max(LEAST_NOISE, math.sqrt(rounds / (2 * _affordable(budget, delta))) * (1 + 1e-9))
    if noise > MOST_NOISE:
        affordable = rounds_within(budget, delta, MOST_NOISE)
        raise UserError(
            f"an ε of {budget:g} at δ = {delta:g} cannot be kept in {rounds:,} rounds by a noise "
            f"multiplier up to {MOST_NOISE:,g}; {advice(affordable)}."
        )
    return _rounded_up(noise)


def rounds_within(budget: float, delta: float, noise_multiplier: float) -> int:
    """The most rounds, up to MOST_ROUNDS, that cost at most ε; may be 0."""
    rounds = 2 * noise_multiplier**2 * _affordable(budget, delta)
    return min(MOST_ROUNDS, math.floor(rounds * (1 + 1e-12)))


def distance(shares: int, deviation: float) -> float:
    """The most by which the log-probability of any value differs between two distributions.

    They are the sum of `shares` discrete Gaussians of this deviation σ ≥ ½, and one of √shares·σ:
    5·Σ_{k<shares} exp(−2π²σ²k/(k+1)) for one number (Kairouz, Liu, Steinke 2021, 2102.06387).
    Poisson's sum formula gives it, since 1/σ² + 1/(kσ²) = (k+1)/(kσ²): a sum of two differs from
    one by three theta functions, each 1 ± 2·exp(−2π²·…) or nearer to 1.
    """
    counted = min(shares - 1, TERMS)
    terms = (math.exp(-2 * (math.pi * deviation) ** 2 * k / (k + 1)) for k in range(1, counted + 1))
    first = math.exp(-((math.pi * deviation) ** 2))  # the largest term, that of k = 1
    return 5 * (sum(terms) + (shares - 1 - counted) * first)


@lru_cache(maxsize=256)
def _affordable(budget: float, delta: float) -> float:
    """The largest ρ, to 10^-9, whose ε is within the budget."""
    low, high = 0.0, 1.0
    while _whole(high, delta) <= budget:
        low, high = high, 2 * high
    while high - low > 1e-10 * high and high > 1e-300:
        middle = (low + high) / 2
        low, high = (middle, high) if _whole(middle, delta) <= budget else (low, middle)
    return max(low, 1e-300)


def _whole(rho: float, delta: float) -> float:
    return epsilon(rho, delta * (1 - NEARNESS)) + NEARNESS


def _rounded_up(noise: float) -> float:
    """A noise multiplier of four digits, not below `noise`."""
    shown = float(f"{noise:.4g}")
    return shown if shown >= noise else float(f"{noise * 1.0005:.4g}")
