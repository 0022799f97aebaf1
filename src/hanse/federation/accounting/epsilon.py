"""The ε of differential privacy that releases with Gaussian noise have spent together.

Privacy loss distributions give the figure (Sommer, Meiser, Mohammadi 2019, PoPETs, "Privacy loss
classes"; connect-the-dots of Doroshenko et al. 2022, 2207.04380), by Google's dp-accounting. Two
data sets are neighbours if one has a unit (a silo, a row) that the other one lacks.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hanse.errors import refuse_missing
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    import dp_accounting
    from dp_accounting import pld, rdp

# Steps of the privacy loss: that of dp-accounting, and multiples of it where there would be more.
STEP, MOST_STEPS = 1e-4, 400_000
TAIL = 12.0  # standard deviations of the privacy loss that its steps cover
# Orders of Rényi divergence; whole ones, since the others do not converge under sampling.
ORDERS = (*range(2, 64), *range(64, 256, 16), 256, 512, 1024, 4096)
LEAST_DELTA = 1e-12  # below about 1e-13 the rounding of distributions is all that is left
MOST_LOSS = 1e6  # of privacy, above which nothing is computed: ε has no meaning there
SLACK, LEAST = 1.02, 0.02  # rounding of the distribution: relative, and absolute


@dataclass(frozen=True)
class GaussianReleases:
    """Equal releases of a sum of vectors, one for each unit, with Gaussian noise.

    noise_multiplier: standard deviation of the noise ÷ largest L2 norm of a unit's vector.
    sampling: probability that a unit is in a release. Below 1 only where each unit is drawn by
        itself (Poisson sampling) and nobody learns the draw; otherwise it is 1.
    count: of such releases.
    """

    noise_multiplier: float
    sampling: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= 0:
            raise ValueError(f"the noise multiplier {self.noise_multiplier} is not at least 0")
        if not 0 <= self.sampling <= 1:
            raise ValueError(f"the sampling probability {self.sampling} is not between 0 and 1")


def epsilon(releases: Iterable[GaussianReleases], delta: float, step: float = STEP) -> float:
    """The least ε, to numerical error upwards, for which all releases together have (ε, δ)-DP.

    inf if one of them has no noise, or hardly any.
    step: of the privacy loss; a larger one is faster, and the figure is a little higher.
    Raises UserError without dp-accounting, and RuntimeError if the figure is above that of Rényi
    divergences (Mironov 2017, 1702.07476), which is an upper bound.
    """
    if not LEAST_DELTA <= delta < 1:
        raise ValueError(f"delta {delta} is not between {LEAST_DELTA:g} and 1")
    total = _grouped(releases)
    if not total:
        return 0.0
    require_accountant()
    if any(release.noise_multiplier == 0 for release in total):
        return math.inf
    if _largest_loss(sum(map(_precision, total))) > MOST_LOSS:
        return math.inf
    return _epsilon(total, delta, step)


def require_accountant() -> None:
    """Raise UserError if dp-accounting is not installed."""
    what = "the accounting of differential privacy"
    refuse_missing(what, "privacy", ["dp_accounting"], "set privacy: none")


@lru_cache(maxsize=4096)
def _epsilon(releases: tuple[GaussianReleases, ...], delta: float, step: float) -> float:
    """The same for releases that are sorted and not equal to each other, with noise."""
    spent = _by_loss_distribution(releases, delta, step)
    bound = by_renyi_divergence(releases, delta)
    if spent > SLACK * bound + LEAST:
        raise RuntimeError(
            f"two accountants disagree: the privacy loss distribution gives an ε of {spent:.6g}, "
            f"and Rényi divergences, a bound, {bound:.6g}, for {releases} at δ = {delta:g}"
        )
    return spent


def by_renyi_divergence(releases: Sequence[GaussianReleases], delta: float) -> float:
    """An upper bound of ε, by Rényi divergences of whole orders; faster, and less tight."""
    accountant = rdp.RdpAccountant(orders=ORDERS)
    for release in releases:
        accountant.compose(_event(release), release.count)
    return float(accountant.get_epsilon(delta))


def _by_loss_distribution(releases: Sequence[GaussianReleases], delta: float, step: float) -> float:
    accountant = pld.PLDAccountant(value_discretization_interval=_step(releases, step))
    for release in releases:
        accountant.compose(_event(release), release.count)
    return float(accountant.get_epsilon(delta))


def _event(release: GaussianReleases) -> Any:
    """One release, as dp-accounting describes it."""
    event = dp_accounting.GaussianDpEvent(release.noise_multiplier)
    if release.sampling == 1:
        return event
    return dp_accounting.PoissonSampledDpEvent(release.sampling, event)


def _grouped(releases: Iterable[GaussianReleases]) -> tuple[GaussianReleases, ...]:
    """The same in few entries, sorted; Gaussian noise without sampling composes to such noise."""
    precision, sampled = 0.0, Counter[tuple[float, float]]()
    for release in releases:
        if release.count == 0 or release.sampling == 0:
            continue
        if release.noise_multiplier == 0:
            return (release,)
        if release.sampling < 1:
            sampled[release.sampling, release.noise_multiplier] += release.count
        else:
            precision += release.count / release.noise_multiplier**2
    whole = [GaussianReleases(precision**-0.5)] if precision else []
    return (*whole, *(GaussianReleases(z, q, n) for (q, z), n in sorted(sampled.items())))


def _step(releases: Sequence[GaussianReleases], step: float) -> float:
    """A multiple of this step of the privacy loss, with at most about MOST_STEPS of them."""
    single = max(_largest_loss(release.noise_multiplier**-2) for release in releases)
    composed = _largest_loss(sum(map(_precision, releases)))
    return step * math.ceil(max(single, composed, 1.0) / (step * MOST_STEPS))


def _largest_loss(precision: float) -> float:
    """The largest privacy loss that matters of Gaussian noise of the variance 1 / precision."""
    return precision / 2 + TAIL * math.sqrt(precision)


def _precision(release: GaussianReleases) -> float:
    """1 / variance of the noise without sampling whose releases lose about as much privacy."""
    z, q = release.noise_multiplier, release.sampling
    lost = z**-2 if q == 1 else min(z**-2, q**2 * math.expm1(min(z**-2, 500.0)))
    return release.count * lost
