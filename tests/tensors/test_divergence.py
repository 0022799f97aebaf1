"""The divergence of two distributions against its definition, and its gradient."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from hanse.tensors.divergence import divergence

P = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
Q = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_its_definition(reverse: bool) -> None:
    one, other = (Q, P) if reverse else (P, Q)
    for row, found in enumerate(divergence(P.log() + 3, Q.log() - 2, reverse=reverse).tolist()):
        terms = zip(one[row].tolist(), other[row].tolist(), strict=True)
        assert found == pytest.approx(sum(p * math.log(p / q) for p, q in terms))


@pytest.mark.parametrize("reverse", [False, True])
def test_its_gradient_is_that_of_finite_differences(reverse: bool) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda p, q: divergence(p, q, 2.5, reverse), (target, logits))


def test_a_high_temperature_keeps_the_size_of_the_gradient() -> None:
    """T²·KL tends to ‖centred difference of the logits‖²/(2V)."""
    target, logits = torch.randn(2, 1, 7, dtype=torch.float64)
    difference = target - logits
    centred = difference - difference.mean()
    limit = float(centred.square().sum()) / (2 * 7)
    assert float(divergence(target, logits, 1e4)) == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_infinite_logits_give_finite_numbers(reverse: bool, dtype: torch.dtype) -> None:
    """Excluded by both, by the target alone, by the model alone; and sure of one class."""
    inf = math.inf
    rows = [[-inf, 0.5, 1.0], [-inf, 0.5, 1.0], [0.0, 0.5, 1.0], [inf, 0.5, -inf]]
    logits = [[-inf, 2.0, 1.0], [3.0, 2.0, 1.0], [-inf, 2.0, 1.0], [3.0, 2.0, 1.0]]
    target = torch.tensor(rows, dtype=dtype)
    student = torch.tensor(logits, dtype=dtype, requires_grad=True)
    found = divergence(target, student, 2.0, reverse)
    found.sum().backward()
    assert student.grad is not None
    assert bool(found.isfinite().all()) and bool(student.grad.isfinite().all())
    both = divergence(target[:1, 1:], student[:1, 1:], 2.0, reverse)
    torch.testing.assert_close(found[:1], both)


def test_sixteen_bits_are_widened() -> None:
    target, logits = torch.randn(2, 4, 9).bfloat16()
    wide = divergence(target.float(), logits.float())
    torch.testing.assert_close(divergence(target, logits), wide, rtol=0, atol=0)
