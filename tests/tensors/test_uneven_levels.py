"""Levels at unequal distances: each number gets the nearest, also at the edges between them."""

import pytest
import torch

from hanse.tensors.uneven_levels import UnevenLevels

LEVELS = torch.tensor([-1.0, -0.6, -0.1, 0.0, 0.05, 0.7, 1.0])


def test_each_number_gets_the_nearest_level() -> None:
    edges = (LEVELS[1:] + LEVELS[:-1]) / 2
    beside = [torch.nextafter(edges, torch.tensor(far)) for far in (-1.0, 1.0)]
    numbers = torch.cat([torch.linspace(-1, 1, 5001), LEVELS, edges, *beside])
    codes = UnevenLevels(LEVELS).codes(numbers)
    distances = (numbers.double()[:, None] - LEVELS.double()).abs()
    chosen = distances.gather(1, codes.long()[:, None])[:, 0]
    assert torch.allclose(chosen, distances.min(dim=1).values, rtol=0, atol=1e-7)
    assert torch.equal(UnevenLevels(LEVELS).codes(LEVELS), torch.arange(7, dtype=torch.uint8))


def test_draws_are_of_the_two_nearest_and_right_in_the_mean() -> None:
    numbers = torch.linspace(-1, 1, 201).repeat(4000, 1)
    codes = UnevenLevels(LEVELS).codes(numbers, torch.Generator().manual_seed(0))
    values, row = LEVELS[codes.long()], numbers[0]
    lower = LEVELS[torch.bucketize(row, LEVELS, right=True).sub(1).clamp(max=5)]
    upper = LEVELS[torch.bucketize(row, LEVELS, right=True).clamp(max=6)]
    assert ((values == lower) | (values == upper)).all()
    deviation = ((row - lower) * (upper - row)).clamp(min=0).sqrt() / 4000**0.5
    assert ((values.mean(dim=0) - row).abs() <= 5 * deviation + 1e-5).all()
    exact = UnevenLevels(LEVELS).codes(LEVELS.repeat(100, 1), torch.Generator().manual_seed(1))
    assert torch.equal(exact, torch.arange(7, dtype=torch.uint8).repeat(100, 1))


def test_levels_that_are_too_close_are_refused() -> None:
    with pytest.raises(ValueError, match="two edges are within"):
        UnevenLevels(torch.tensor([-1.0, 0.0, 0.001, 0.002, 1.0]))
