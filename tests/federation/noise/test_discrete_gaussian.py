"""The discrete Gaussian sampler: the distribution of its draws, and of the draws behind them."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from hanse.federation.noise import discrete_gaussian as sampler
from hanse.federation.noise import os_noise
from hanse.federation.noise.discrete_gaussian import MOST_DEVIATION, discrete_gaussian
from hanse.randomness import RoundContext

CONTEXT = RoundContext(0, 1)
UNLIKELY = 1e-9  # a probability: draws differ from run to run
FAR = 6.0  # standard deviations


def source(size: int) -> bytes:
    return os_noise.random_bytes(size, CONTEXT)


def likelihood(drawn: list[int], weights: dict[int, float]) -> float:
    """The probability that draws of these weights fit them as badly: the p-value of chi-square.

    Values of fewer than ten expected draws are taken together.
    """
    counts, total = Counter(drawn), sum(weights.values())
    expected = {value: len(drawn) * weight / total for value, weight in weights.items()}
    often = [value for value, number in expected.items() if number >= 10]
    pairs = [(counts[value], expected[value]) for value in often]
    rest = len(drawn) - sum(number for _, number in pairs)
    pairs += [(len(drawn) - sum(count for count, _ in pairs), rest)] if rest >= 10 else []
    square = sum((count - number) ** 2 / number for count, number in pairs)
    return float(chi2.sf(square, len(pairs) - 1))


@pytest.mark.parametrize("deviation", [1, 2, 6])
def test_draws_have_the_probabilities_of_a_discrete_gaussian(deviation: int) -> None:
    drawn = discrete_gaussian(100_000, deviation, CONTEXT).tolist()
    reach = range(-40 * deviation, 40 * deviation + 1)
    weights = {x: math.exp(-((x / deviation) ** 2) / 2) for x in reach}
    assert likelihood(drawn, weights) > UNLIKELY
    wider = {x: math.exp(-((x / deviation / 1.04) ** 2) / 2) for x in reach}
    assert likelihood(drawn, wider) < UNLIKELY  # so many draws tell 4 % of the deviation


def test_the_variance_of_a_million_draws() -> None:
    drawn = discrete_gaussian(10**6, 1000, CONTEXT)
    assert drawn.dtype == torch.int64 and drawn.shape == (10**6,)
    assert float(drawn.double().var()) == pytest.approx(1000.0**2, rel=0.02)
    assert abs(float(drawn.double().mean())) < 5.0
    pairs = torch.corrcoef(drawn.double().view(2, -1))
    assert abs(float(pairs[0, 1])) < 0.01


def test_the_largest_deviation_overflows_nowhere() -> None:
    drawn = discrete_gaussian(20_000, MOST_DEVIATION, CONTEXT).double() / MOST_DEVIATION
    assert float(drawn.std()) == pytest.approx(1.0, rel=0.03)
    assert float(drawn.abs().max()) < 7
    farthest = np.array([(sampler.FARTHEST * MOST_DEVIATION) ** 2])
    assert not sampler._exponential(farthest, 2 * MOST_DEVIATION**2, source)[0]
    for deviation in (0, MOST_DEVIATION + 1):
        with pytest.raises(ValueError, match="not from 1 to 16777216"):
            discrete_gaussian(1, deviation, CONTEXT)


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 7), (1, 3), (2, 2), (9, 4), (7, 1)])
def test_exponentials_are_true_as_often_as_they_should(numerator: int, denominator: int) -> None:
    flags = sampler._exponential(np.full(50_000, numerator), denominator, source)
    share = math.exp(-numerator / denominator)
    spread = math.sqrt(share * (1 - share) / len(flags))
    assert abs(float(flags.mean()) - share) <= FAR * spread


@pytest.mark.parametrize(("bound", "parts"), [(2, 2), (3, 3), (200, 4), (257, 257), (3 << 40, 3)])
def test_uniform_numbers_have_no_bias(bound: int, parts: int) -> None:
    drawn = sampler._uniform(bound, 60_000, source)
    assert drawn.min() >= 0 and drawn.max() < bound
    share = (drawn // (bound // parts)).tolist()
    assert likelihood(share, dict.fromkeys(range(parts), 1.0)) > UNLIKELY


def test_words_beyond_the_last_whole_multiple_are_drawn_again() -> None:
    """Words modulo 200 of 16 bits would favour the first 136 numbers."""
    words = iter([np.array([65_535, 65_400, 65_399], "<u2"), np.array([7, 208], "<u2")])
    drawn = sampler._uniform(200, 3, lambda size: next(words).tobytes())
    assert drawn.tolist() == [199, 7, 8]


def test_as_many_draws_as_asked() -> None:
    for count in (0, 1, 5, 70_001):
        assert discrete_gaussian(count, 6, CONTEXT).shape == (count,)
    first, again = (discrete_gaussian(50, 1000, CONTEXT) for _ in range(2))
    assert not torch.equal(first, again)  # the system's randomness, not the context's
