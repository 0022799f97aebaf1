"""The probability of right bits by chance, and the bound: against counting, and solved."""

from itertools import product

import pytest
import torch
from torch import Tensor

from hanse.audit.ownership.chance import LARGEST_P, detection_bound, least_right, p_value


@pytest.mark.parametrize(("items", "choices"), [(6, 2), (4, 3), (3, 5)])
def test_the_probability_is_that_of_all_ways_to_answer(items: int, choices: int) -> None:
    ways = list(product(range(choices), repeat=items))
    for right in range(items + 1):
        counted = sum(answers.count(0) >= right for answers in ways) / len(ways)
        assert p_value(right, items, choices) == pytest.approx(counted, abs=1e-15)


def test_known_values() -> None:
    assert p_value(64, 64) == 2.0**-64
    assert p_value(0, 64) == 1.0
    assert p_value(32, 64) == pytest.approx(0.5497, abs=1e-4)
    assert p_value(4000, 4096) < 1e-300, "many bits are no overflow"


def test_the_fewest_right_answers_that_prove_something() -> None:
    least = least_right(64)
    assert least == 56
    assert p_value(56, 64) <= LARGEST_P < p_value(55, 64)
    assert least_right(20) is None, "2⁻²⁰ is a chance that a forger takes"
    assert least_right(2, choices=2**36) == 1


@pytest.mark.parametrize("wrong", [(5, 4, 2), (-1, 4, 2), (1, 4, 1)])
def test_impossible_counts(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="choices"):
        p_value(*wrong)


def test_the_bound_of_the_theorem_at_the_papers_sizes() -> None:
    assert [detection_bound(bits, 128) for bits in (64, 128)] == [1.0, 1.0]
    assert detection_bound(256, 128) == 0.75
    assert detection_bound(512, 128) == 0.625


@pytest.mark.parametrize(("bits", "bound"), [(64, 1.0), (128, 1.0), (256, 0.75), (512, 0.625)])
def test_a_hinge_alone_reaches_the_bound(bits: int, bound: float) -> None:
    """M = 128 channels, as in the project's check of the theorem: 1.00, 1.00, 0.969, 0.703."""
    draws = torch.Generator().manual_seed(0)
    matrix = torch.randn(128, bits, generator=draws)
    signs = torch.randint(0, 2, (bits,), generator=draws) * 2.0 - 1
    right = _solved(matrix, signs)
    assert right >= bound
    assert right < 0.9 or bits < 512, "the bound is of some use"


def _solved(matrix: Tensor, signs: Tensor) -> float:
    """The share of right bits after the hinge was minimized by its gradient."""
    weights = torch.zeros(128, requires_grad=True)
    optimizer = torch.optim.Adam([weights], 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (1 - signs * (weights @ matrix)).clamp_min(0).sum().backward()
        optimizer.step()
    return float(((weights @ matrix).sign() == signs).float().mean())
