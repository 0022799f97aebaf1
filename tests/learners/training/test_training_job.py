"""A training's arguments: learning rates of a whole run, and batches from indices."""

from dataclasses import replace

import numpy as np
import pytest

from clients import rows
from hanse.data.packed import Examples, Packed, pack
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from toy_learners import Toy, points

LINEAR = TrainingSettings(learning_rate=0.8, lr_scheduler_type="linear", max_steps=2)


def _job(round: int = 2) -> TrainingJob:
    context = RoundContext(0, round, "c")
    learner = Toy({"train": points(0, 6)})(context, {})
    return TrainingJob(learner, "train", LINEAR, Sft(), context, 4, None, {})


def test_the_schedule_runs_over_all_rounds() -> None:
    assert [_job().learning_rate(step, 2) for step in (0, 1)] == pytest.approx([0.6, 0.5])
    assert _job(0).learning_rate(1, 2) == _job(1).learning_rate(1, 2) == pytest.approx(0.7)


def test_batches_are_made_of_the_examples_at_these_places() -> None:
    job = _job()
    train = job.learner.examples("train")
    first, second = job.batches(0, [[4, 0], [5]])
    assert first.targets.tolist() == [train[4].y, train[0].y]
    assert second.targets.tolist() == [train[5].y]


def test_a_round_draws_its_own_batches() -> None:
    drawn = [_job(round).sample_batches() for round in (1, 2, 2)]
    assert drawn[0] != drawn[1] == drawn[2]
    longer = replace(_job(), settings=replace(LINEAR, max_steps=3))
    assert [len(longer.sample_batches()), len(drawn[1])] == [3, 2]


def test_lengths_are_told_without_making_packed_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = rows(1, 5)
    packed = Examples(pack(texts), np.arange(5, dtype=np.int32))
    monkeypatch.setattr(Packed, "example", lambda *_: pytest.fail("an example was made"))
    learner = AdaptedModel.__new__(AdaptedModel)
    learner.splits = {"train": packed}
    assert learner.lengths("train") == list(map(len, texts))
