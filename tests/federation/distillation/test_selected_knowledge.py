"""Dual minimum cross-entropy: its truth table, and the loss of what is selected."""

import math
from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from hanse.federation.distillation.public_logits import PublicRows
from hanse.federation.distillation.selected_knowledge import CoTuning, Knowledge, select
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from toy_learners import CLASSES
from toys import held_out

LEVELS = (0.1, 0.5, 0.5, 1.2)  # of losses; two may be equal
COUNTS = torch.tensor([2, 1, 3])  # labels of each example
SIZE = 4  # classes; the label is always the class 0
NO_MATCH = [0.0, -top_k.GAP, -top_k.GAP, -top_k.GAP]  # a row as `transfer` fills it


def rows(counts: Tensor) -> PublicRows:
    return PublicRows(False, counts, SIZE, torch.zeros(int(counts.sum()), dtype=torch.long))


def model(losses: Sequence[float | None], k: int = 2) -> dict[str, Tensor]:
    """The predictions of a model with these losses of its rows; None: it has matched no row."""
    logits = []
    for loss in losses:
        p = math.exp(-(loss or 0))
        others = [math.log((1 - p) * share) for share in (0.5, 0.3, 0.2)] if loss else []
        logits.append([-loss, *others] if loss else NO_MATCH)
    return top_k.top_k(torch.tensor(logits, dtype=torch.float64), k)


def of(known: Knowledge, row: int) -> list[list[float]]:
    return [part[row].tolist() for part in known.parts.values()]


def test_the_truth_table_of_two_clients_and_the_server() -> None:
    """An example is learned iff some loss is below the own one, and from the least one then."""
    cases = [*product(LEVELS, repeat=3)]
    first, second, own = (model(column) for column in zip(*cases, strict=True))
    known = select([first, second], own, rows(torch.ones(len(cases), dtype=torch.long)))
    for place, (one, two, mine) in enumerate(cases):
        assert bool(known.taken[place]) == (one < mine or two < mine)
        best = first if one <= two else second
        for name, part in known.parts.items():
            assert torch.equal(part[place], best[name][place])


@pytest.mark.parametrize("k", [1, 2, SIZE])
def test_a_bad_client_is_never_selected(k: int) -> None:
    """What counts is what it predicts; it has no word for its losses."""
    good, bad = model([0.2, 0.2, 0.3, 0.4, 0.4, 0.4], k), model([1.1] * 6, k)
    own = model([0.6, 0.6, 0.1, 0.6, 0.6, 0.6], k)
    for order in ([good, bad], [bad, good]):
        known = select(order, own, rows(COUNTS))
        assert known.taken.tolist() == [True, False, True]
        assert of(known, 0) == [part[0].tolist() for part in good.values()]
        assert of(known, 5) == [part[5].tolist() for part in good.values()]
    for strategy in ("greater", "weighted_mean"):
        assert not select([bad, bad], own, rows(COUNTS), strategy).taken.any()


def test_rows_that_a_teacher_has_not_matched_count_for_nobody() -> None:
    own = model([0.5] * 6)
    blind = model([None] * 6)
    assert not select([blind], own, rows(COUNTS)).taken.any()
    assert not select([blind, blind], own, rows(COUNTS), "weighted_mean").taken.any()
    half = model([None, 0.9, 0.1, None, None, 0.4])  # one-hot rows do not make up for a bad one
    assert select([half], own, rows(COUNTS)).taken.tolist() == [False, True, True]


def test_examples_without_labels_are_not_learned() -> None:
    known = select([model([0.1])], model([0.5]), rows(torch.tensor([0, 1, 0])))
    assert known.taken.tolist() == [False, True, False]


def test_a_label_that_is_left_out_has_its_share_of_the_rest() -> None:
    """Both sides lose it alike: a model does not learn from its own predictions."""
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]], dtype=torch.float64)
    parts, one = top_k.top_k(logits, 1), rows(torch.ones(1, dtype=torch.long))
    share = (1 - logits.softmax(1)[0, 1]) / 3
    found = float(top_k.of_labels(parts, one.labels, SIZE))
    assert found == pytest.approx(float(share.log()))
    assert not select([parts], parts, one).taken.any()
    loss = -found
    assert select([model([loss - 0.01], SIZE)], model([loss], SIZE), one).taken.all()


def test_all_labels_of_an_example_come_from_one_client() -> None:
    one, two = model([0.1, 0.1, 0.9, 0.1, 0.1, 0.1]), model([0.5, 0.05, 0.2, 0.5, 0.5, 0.5])
    known = select([one, two], model([1.0] * 6), rows(COUNTS))
    for row, best in enumerate([one, one, two, one, one, one]):
        assert of(known, row) == [part[row].tolist() for part in best.values()]


def test_the_weighted_mean_is_that_of_distributions_by_their_losses() -> None:
    """By hand: softmax(exp(-l)) over those that have matched a row, none over the others."""
    losses: list[list[float | None]] = [
        [0.1, 0.3, 1.0, None, 0.2, None],
        [1.0, 0.8, 0.5, 0.3, None, None],
    ]
    teachers = [model(own, SIZE) for own in losses]
    known = select(teachers, model([0.6, 0.6, 0.4, 0.6, 0.6, 0.6]), rows(COUNTS), "weighted_mean")
    assert known.taken.tolist() == [True, False, True]
    scores = torch.tensor([[0.2, 1.0, 0.2], [0.9, 0.5, 0.3]], dtype=torch.float64).neg().exp()
    weights = scores.softmax(dim=0).repeat_interleave(COUNTS, dim=1)
    weights[:, 3], weights[:, 4] = torch.tensor([0, 1]), torch.tensor([1, 0])
    expected = sum(
        weights[n][:, None] * top_k.dense(own, SIZE).exp() for n, own in enumerate(teachers)
    )
    torch.testing.assert_close(top_k.dense(known.parts, SIZE).exp(), expected)
    assert float(top_k.dense(known.parts, SIZE)[5, 0]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_equals_the_formula(weight: float) -> None:
    """λ·CE(y) + (1 - λ)·Σ over taken rows of -Σ p log q, both as means over all rows, by hand."""
    learner = held_out(hidden=5)(RoundContext(0), {})
    batch = learner.batch(learner.examples("public")[:4])
    own = PublicRows(False, torch.ones(30, dtype=torch.long), CLASSES, batch.targets.repeat(8)[:30])
    logits = torch.randn(30, CLASSES, generator=torch.Generator().manual_seed(1))
    taken = torch.tensor([True, False, True, True, *[False] * 26])
    known = Knowledge(top_k.top_k(logits, 1), taken)
    objective = CoTuning(own, known, weight)
    loss = objective.loss(learner, objective.with_targets(batch, range(4)))
    q, p = learner.forward(batch).softmax(dim=1), logits.softmax(dim=1)
    expected = torch.zeros(())
    for row in range(4):
        y, best = int(own.labels[row]), int(p[row].argmax())
        soft = p[row, best] * q[row, best].log()
        soft = soft + (1 - p[row, best]) * (1 - q[row, best]).log()
        expected = expected - weight * q[row, y].log() - (1 - weight) * taken[row] * soft
    torch.testing.assert_close(loss, expected / 4, atol=1e-5, rtol=1e-5)
