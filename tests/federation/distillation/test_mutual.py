"""Predictions of two models, and the gradient by which one is drawn to the other's."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.distillation.mutual import Predictions, distillation_loss, predictions
from hanse.randomness import RoundContext
from toy_learners import Toy, points

STEP = 1e-6


def drawn(classes: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(5, classes, dtype=torch.float64, generator=draw).requires_grad_()


def of(logits: Tensor) -> Predictions:
    return Predictions(logits, logits.sum())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("classes", [(4, 4), (4, 6), (6, 4)])
def test_the_gradient_is_that_of_finite_differences_and_of_one_model_alone(
    classes: tuple[int, int], reverse: bool
) -> None:
    own, other = drawn(classes[0], 1), drawn(classes[1], 2)
    temperature = 2.0

    def brute(row: list[list[float]]) -> float:
        """The mean of T²·Σ a·log(a/b), number by number."""
        total = 0.0
        for mine, theirs in zip(row, other.tolist(), strict=True):
            shares = [
                torch.tensor(each[: min(classes)], dtype=torch.float64).div(temperature).softmax(0)
                for each in (mine, theirs)
            ]
            b, a = reversed(shares) if reverse else shares
            total += sum(float(p * (p / q).log()) for p, q in zip(a, b, strict=True))
        return temperature**2 * total / len(row)

    value = distillation_loss(of(own), of(other), temperature, reverse)
    assert float(value.detach()) == pytest.approx(brute(own.tolist()), rel=1e-9)
    value.backward()
    assert other.grad is None and own.grad is not None
    for row in range(2):
        for column in range(classes[0]):
            up, down = own.tolist(), own.tolist()
            up[row][column] += STEP
            down[row][column] -= STEP
            slope = (brute(up) - brute(down)) / (2 * STEP)
            assert float(own.grad[row, column]) == pytest.approx(slope, abs=1e-7)
    assert float(own.grad.abs().max()) > 1e-2


@dataclass(frozen=True)
class Batch:
    """A batch with as many right classes as it says, of so many items."""

    targets: Tensor
    items: int
    choices: int = 0
    choice: Any = None


class Fixed:
    """Predictions all the same; `scores` are of the label words."""

    def forward(self, batch: Batch) -> Tensor:
        return torch.tensor([[0.0, 1.0, 2.0]] * 2)

    def scores(self, batch: Batch) -> Tensor:
        return torch.tensor([[0.0, 1.0]] * 2)


def test_label_words_are_scored_among_themselves_and_tokens_in_the_vocabulary() -> None:
    fixed: Any = Fixed()
    by_word = predictions(fixed, Batch(torch.tensor([7, 8]), 2, 2, torch.tensor([0, 1])))
    assert by_word.logits.shape == (2, 2)
    e = torch.tensor(1.0).exp()
    assert float(by_word.loss) == pytest.approx(float(((1 + e).log() * 2 - 1) / 2))
    by_token = predictions(fixed, Batch(torch.tensor([2, 2]), 2))
    assert by_token.logits.shape == (2, 3)
    assert float(by_token.loss) == pytest.approx(float((1 + e + e * e).log() - 2))


def test_pairs_of_answers_have_no_right_class() -> None:
    fixed: Any = Fixed()
    with pytest.raises(UserError, match="choose the objective sft, classify or tag"):
        predictions(fixed, Batch(torch.tensor([1, 2]), items=1))


def test_a_toy_answers_with_its_own_logits() -> None:
    toy = Toy({"train": points(0, 6)})(RoundContext(0), {})
    batch = toy.batch(toy.examples("train"))
    with torch.no_grad():
        assert torch.equal(predictions(toy, batch).logits, toy.forward(batch))
