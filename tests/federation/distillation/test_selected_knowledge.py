"""Dual minimum cross-entropy: its truth table, and the loss of what is selected."""

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

LEVELS = (0.1, 0.5, 0.5, 2.0)  # of losses; two may be equal
COUNTS = torch.tensor([2, 1, 3])  # labels of each example


def rows(counts: Tensor) -> PublicRows:
    return PublicRows(False, counts, 4, torch.zeros(int(counts.sum()), dtype=torch.long))


def teacher(losses: list[float], seed: int, counts: Tensor, k: int = 2) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(int(counts.sum()), 4, generator=draw).log_softmax(dim=1)
    return {**top_k.top_k(logits, k), "losses": torch.tensor(losses)}


def test_the_truth_table_of_two_clients_and_the_server() -> None:
    """An example is learned iff some loss is below the own one, and from the least one then."""
    cases = [*product(LEVELS, repeat=3)]
    counts = torch.ones(len(cases), dtype=torch.long)
    first, second, own = (torch.tensor(column) for column in zip(*cases, strict=True))
    teachers = [teacher(losses.tolist(), n, counts) for n, losses in enumerate((first, second))]
    known = select(teachers, own, rows(counts))
    for place, (one, two, mine) in enumerate(cases):
        assert bool(known.taken[place]) == (one < mine or two < mine)
        best = teachers[0 if one <= two else 1]
        for name, part in known.parts.items():
            assert torch.equal(part[place], best[name][place])


def test_a_bad_client_is_never_selected() -> None:
    good = teacher([0.2, 0.3, 0.4], 0, COUNTS)
    bad = teacher([5.0, 6.0, 7.0], 1, COUNTS)
    for order in ([good, bad], [bad, good]):
        known = select(order, torch.tensor([1.0, 0.1, 1.0]), rows(COUNTS))
        assert known.taken.tolist() == [True, False, True]
        assert all(torch.equal(part, good[name]) for name, part in known.parts.items())
    assert not select([bad], torch.ones(3), rows(COUNTS)).taken.any()


def test_all_labels_of_an_example_come_from_one_client() -> None:
    one, two = teacher([0.1, 0.9, 0.1], 0, COUNTS), teacher([0.5, 0.2, 0.5], 1, COUNTS)
    known = select([one, two], torch.ones(3), rows(COUNTS))
    for row, best in enumerate([one, one, two, one, one, one]):
        assert torch.equal(known.parts["values"][row], best["values"][row])


def test_the_weighted_mean_is_that_of_distributions_by_their_losses() -> None:
    losses = [[0.1, 2.0, 3.0], [1.0, 0.5, 3.0]]
    teachers = [teacher(own, n, COUNTS, k=4) for n, own in enumerate(losses)]
    known = select(teachers, torch.tensor([0.4, 1.6, 2.9]), rows(COUNTS), "weighted_mean")
    weights = torch.tensor(losses).neg().exp().softmax(dim=0)
    mixed = (weights * torch.tensor(losses)).sum(dim=0)
    assert known.taken.tolist() == (mixed < torch.tensor([0.4, 1.6, 2.9])).tolist()
    assert known.taken.any() and not known.taken.all()
    owner = [0, 0, 1, 2, 2, 2]
    expected = sum(
        weights[n, owner][:, None] * top_k.dense(one_of(own), 4).exp()
        for n, own in enumerate(teachers)
    )
    torch.testing.assert_close(top_k.dense(known.parts, 4).exp(), expected, atol=1e-5, rtol=1e-5)


def one_of(own: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part for name, part in own.items() if name != "losses"}


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
