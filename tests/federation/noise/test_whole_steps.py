"""The grid of whole steps, and rounding to it: unbiased, and never longer than accounted for."""

import math

import pytest
import torch

from hanse.federation.accounting.concentrated import LEAST_DEVIATION
from hanse.federation.noise.rotation import padded_size, rotate
from hanse.federation.noise.whole_steps import choose, largest_square, rounded
from hanse.randomness import RoundContext

MOST = 2**30 - 1


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rounding_is_to_a_neighbour_and_hardly_biased() -> None:
    vector = torch.tensor([0.25, -0.25, 2.5, -7.0, 0.0]).double()
    drawn = torch.stack([rounded(vector, 10**6, draw(seed)) for seed in range(4000)])
    assert drawn.dtype == torch.int64
    assert float((drawn - vector).abs().max()) < 1
    torch.testing.assert_close(drawn.double().mean(0), vector, atol=0.04, rtol=0)


@pytest.mark.parametrize(("clip", "size"), [(1, 4096), (8, 1024), (64, 4096), (10**4, 2)])
def test_no_rounded_update_is_longer_than_accounted_for(clip: int, size: int) -> None:
    square = largest_square(clip, size)
    for seed in range(50):
        vector = torch.randn(size, generator=draw(seed)).double()
        vector *= clip / vector.norm()
        whole = rounded(vector, square, draw(seed))
        assert int(whole.square().sum()) <= square
    assert clip**2 < square <= (clip + math.sqrt(size)) ** 2


def test_a_rounding_that_is_too_long_is_drawn_again() -> None:
    """Without the condition half of these would be longer than what privacy is accounted for."""
    clip, size = 4, 4096
    vector = torch.full((size,), clip / math.sqrt(size)).double()  # each 1 with p = 1/16
    lengths = [int(rounded(vector, 10**9, draw(seed)).square().sum()) for seed in range(200)]
    limit = sorted(lengths)[100]
    kept = [int(rounded(vector, limit, draw(seed)).square().sum()) for seed in range(200)]
    assert max(lengths) > limit >= max(kept) and min(kept) > 0
    assert int(rounded(vector, 0, draw(0)).abs().sum()) == 0  # towards zero, if nothing else fits
    with pytest.raises(ValueError, match="longer than √5 steps before it is rounded"):
        rounded(torch.full((9,), 3.0).double(), 5, draw(0))


def test_few_roundings_are_drawn_again() -> None:
    """Δ² is such that a rounding fits with a probability of at least 1 − exp(−1/2)."""
    clip, size = 16, 1024
    vector = torch.rand(size, generator=draw(1)).double() - 0.5
    vector *= clip / vector.norm()
    fits = 0
    for seed in range(500):
        whole = rounded(vector, 10**9, draw(seed))
        fits += int(whole.square().sum()) <= largest_square(clip, size)
    assert fits / 500 >= 1 - math.exp(-0.5)


@pytest.mark.parametrize("size", [3, 770, 74_498])
@pytest.mark.parametrize(("clients", "shares"), [(3, 2), (11, 5), (1000, 700)])
@pytest.mark.parametrize("z", [0.0, 0.5, 40.0])
def test_the_noise_of_the_shares_is_at_least_z_times_the_effect(
    size: int, clients: int, shares: int, z: float
) -> None:
    steps = choose(size, clients, shares, z, MOST)
    assert steps.square == largest_square(steps.clip, padded_size(size))
    exact = z * math.sqrt(steps.square / shares)
    assert exact <= steps.deviation <= max(LEAST_DEVIATION, exact * (1 + 1e-9) + 1)


@pytest.mark.parametrize("most", [2**14 - 1, 2**30 - 1])
def test_sums_stay_in_range(most: int) -> None:
    clients, size, z = 40, 5000, 0.5
    steps = choose(size, clients, 20, z, most)
    vector = torch.zeros(size).double()
    vector[7] = steps.clip  # all clients the same, and all in one number
    coordinate = float(rotate(vector, RoundContext(0, 1)).abs().max())
    spread = math.sqrt(clients) * steps.deviation
    assert clients * (coordinate + 1) + 7 * spread < most
    with pytest.raises(ValueError, match="no grid of 500 steps"):
        choose(size, clients, 20, z, 500)


def test_a_grid_whose_rounding_would_cost_too_much_noise_is_refused() -> None:
    assert choose(100_000, 11, 5, 1.0, 2**14 - 1).clip >= 128
    with pytest.raises(ValueError, match="for 10000000 numbers"):
        choose(10_000_000, 11, 5, 1.0, 2**14 - 1)
