"""Logits of public rows on real architectures: their order, their targets, and their memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.data.example import IGNORED, Example
from hanse.federation.distillation.imitation import Imitation
from hanse.federation.distillation.public_logits import PUBLIC, SentForm, predictions, public_rows
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

# Texts of unlike lengths, with 1 to 4 labels at unlike places; the longest ones are not the first.
TEXTS = [
    Example(ids, tuple(t if place in learned else IGNORED for place, t in enumerate(ids)))
    for ids, learned in [
        (tuple(range(20, 26)), {3, 5}),
        (tuple(range(40, 52)), {1, 2, 7, 11}),
        (tuple(range(60, 64)), {3}),
        (tuple(range(80, 89)), {4, 6, 8}),
    ]
]
WORDS = [
    Example(ids, (IGNORED,) * len(ids), ((30,), (31,), (32,)), place % 3)
    for place, ids in enumerate([(5, 6, 7, 8), (9, 10), (11, 12, 13)])
]


def model(folder: Path, examples: list[Example], **training: Any) -> AdaptedModel:
    """A random adapter on a random model."""
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    adapter = backbone.attach(Lora(r=4), seed=0)
    settings = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=2, **training)
    context = RoundContext(0, 1, "a")
    learner = AdaptedModel(
        backbone, adapter, {PUBLIC: examples}, settings, Sft(), context, 1, {}, max_length=32
    )
    draw = torch.Generator().manual_seed(1)
    start = {n: torch.randn(t.shape, generator=draw) for n, t in learner.tensors().items()}
    learner.load(start)
    return learner


def one_by_one(learner: Learner, words: bool) -> Tensor:
    """The logits of all examples, each by itself."""
    with torch.no_grad():
        batches = [learner.batch([example]) for example in learner.examples(PUBLIC)]
        return torch.cat([learner.scores(b) if words else learner.forward(b) for b in batches])


@pytest.mark.parametrize(("examples", "words"), [(TEXTS, False), (WORDS, True)])
@pytest.mark.parametrize("size", [1, 3])
def test_rows_are_those_of_each_example_in_order(
    tiny_llama: Path, examples: list[Example], words: bool, size: int
) -> None:
    learner = model(tiny_llama, examples)
    rows = public_rows(learner)
    assert (rows.words, rows.total) == ((True, 3) if words else (False, 10))
    assert rows.counts.tolist() == ([1, 1, 1] if words else [2, 4, 1, 3])
    parts = predictions(learner, rows, SentForm(2, 2.0, "float32", size))
    expected = (one_by_one(learner, words) / 2.0).log_softmax(dim=1)
    values, indices = expected.topk(2, dim=1)
    assert torch.equal(parts["indices"].long(), indices)
    torch.testing.assert_close(parts["values"], values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts["rest"].exp(), 1 - values.exp().sum(1), atol=1e-5, rtol=1e-4)


def test_rows_of_some_examples_stand_example_by_example(tiny_llama: Path) -> None:
    rows = public_rows(model(tiny_llama, TEXTS))
    assert rows.at([3, 0, 1]).tolist() == [7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert rows.at([]).tolist() == []


def test_no_forward_pass_has_more_public_rows_than_allowed(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, sizes = model(tiny_llama, TEXTS), []
    forward = AdaptedModel.forward

    def counted(own: AdaptedModel, batch: Any) -> Tensor:
        sizes.append(batch.examples)
        return forward(own, batch)

    monkeypatch.setattr(AdaptedModel, "forward", counted)
    predictions(learner, public_rows(learner), SentForm(2, 1.0, "float32", 2))
    assert max(sizes) == 2


@pytest.mark.parametrize(("examples", "words"), [(TEXTS, False), (WORDS, True)])
@pytest.mark.parametrize("packing", [False, True])
def test_every_batch_of_a_training_finds_its_own_targets(
    tiny_llama: Path, examples: list[Example], words: bool, packing: bool
) -> None:
    """A model's divergence from itself is 0 in each batch, and from other rows' targets it is not.

    k is below the number of classes, two micro-batches make a step, and rows are drawn in an order
    of their own.
    """
    learner = model(tiny_llama, examples, gradient_accumulation_steps=2, packing=packing)
    rows = public_rows(learner)
    own = predictions(learner, rows, SentForm(2, 1.0, "float32", 3))
    turned = {name: part.roll(1, 0) for name, part in own.items()}
    losses = [
        [
            float(objective.loss(learner, batch).detach())
            for number, step in enumerate(job.sample_batches())
            for batch in job.batches(number, step)
        ]
        for objective in (Imitation(rows, own), Imitation(rows, turned))
        for job in [job_of(learner, objective)]
    ]
    assert max(losses[0]) < 1e-5 < 1e-2 < max(losses[1])


def job_of(learner: AdaptedModel, objective: Objective) -> TrainingJob:
    return TrainingJob(
        learner, PUBLIC, learner.training, objective, learner.context, 1, None, {}
    )  # fmt: skip


def test_the_loss_and_its_gradient_equal_the_formula(tiny_llama: Path) -> None:
    """T²·Σ p·(log p − log q) over kept classes and all others, of two distributions by hand."""
    teacher, student = model(tiny_llama, TEXTS), model(tiny_llama, TEXTS)
    student.load({n: 0.5 * t for n, t in student.tensors().items()})
    rows, temperature, k = public_rows(student), 3.0, 4
    target = predictions(teacher, rows, SentForm(k, temperature, "float32", 4))
    objective = Imitation(rows, target, temperature)
    batch = objective.with_targets(student.batch(TEXTS), range(4))
    loss = objective.loss(student, batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in student.parameters().items() if p.grad is not None}
    for parameter in student.parameters().values():
        parameter.grad = None
    q = (student.forward(student.batch(TEXTS)) / temperature).softmax(dim=1)
    p = (one_by_one(teacher, False) / temperature).softmax(dim=1)
    total = torch.zeros(())
    for row in range(10):
        kept = p[row].topk(k).indices
        pairs = [*zip(p[row, kept], q[row, kept], strict=True)]
        pairs.append((1 - p[row, kept].sum(), 1 - q[row, kept].sum()))
        for mine, learned in pairs:
            total = total + temperature**2 * mine * (mine.log() - learned.log()) / 10
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-4)
    total.backward()
    assert found
    for name, parameter in student.parameters().items():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_perfect_teacher_lowers_the_cross_entropy(tiny_llama: Path) -> None:
    learner = model(tiny_llama, TEXTS, num_train_epochs=30)
    rows = public_rows(learner)
    batch = learner.batch(TEXTS)

    def loss() -> float:
        with torch.no_grad():
            return float(cross_entropy(learner.forward(batch), batch.targets))

    start = loss()
    sure = torch.full((rows.total, 1), -0.01)
    target = {
        "values": sure,
        "indices": batch.targets[:, None].int(),
        "rest": torch.expm1(-sure[:, 0]).log(),
    }
    learner.fit(objective=Imitation(rows, target), split=PUBLIC)
    assert loss() < 0.5 * start


def test_what_is_kept_of_a_number_of_two_bytes_is_finite(tiny_llama: Path) -> None:
    learner = model(tiny_llama, WORDS)
    rows = public_rows(learner)
    learner.load({n: 1e5 * t for n, t in learner.tensors().items()})
    parts = predictions(learner, rows, SentForm(2, 1e-6, "float16", 3))
    assert parts["values"].dtype == parts["rest"].dtype == torch.float16
    assert all(bool(part.isfinite().all()) for part in parts.values())


def test_other_labels_have_another_digest(tiny_llama: Path) -> None:
    moved = [replace(TEXTS[0], ids=(20, 21, 22, 99, 24, 25)), *TEXTS[1:]]
    moved[0] = replace(moved[0], labels=(IGNORED,) * 3 + (99, IGNORED, 25))
    digests = {public_rows(model(tiny_llama, rows)).digest for rows in (TEXTS, moved, TEXTS[::-1])}
    assert len(digests) == 3 and "" not in digests
