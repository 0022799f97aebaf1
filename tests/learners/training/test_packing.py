"""Packed rows hold every example once, are nearly full, and change no loss."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clients import client, rows
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.adapters.lora import Lora
from hanse.learners.kernels import unpadded
from hanse.learners.load import load as load_model
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.packing import packed_rows, row_count
from hanse.learners.training.settings import TrainingSettings

SETTINGS = TrainingSettings(packing=True, per_device_train_batch_size=2)


def test_each_example_is_in_one_row_and_no_row_is_too_long() -> None:
    draw = random.Random(0)
    sizes = [draw.randint(1, 30) for _ in range(500)]
    packed = packed_rows(sizes, 32)
    assert sorted(index for row in packed for index in row) == list(range(500))
    totals = [sum(sizes[index] for index in row) for row in packed]
    assert max(totals) <= 32
    assert len(packed) <= 1.05 * sum(sizes) / 32
    assert row_count(sizes, SETTINGS, 32) == len(packed)
    assert row_count(sizes, replace(SETTINGS, packing=False), 32) == 500


def test_the_fullest_row_that_has_room_gets_an_example() -> None:
    assert packed_rows([5, 9, 7, 3, 1], 10) == [[1, 4], [2, 3], [0]]
    assert packed_rows([12, 3], 10) == [[0], [1]]


def test_a_packed_round_has_the_losses_and_gradients_of_its_examples_apart(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_model(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    learner = client(backbone, "a", rows(3, 24), Lora(r=4), max_steps=None, packing=True)
    learner.max_length = 48
    job = learner.job()
    steps = job.sample_batches()
    assert sorted(index for [batch] in steps for index in batch) == list(range(24))
    assert len(steps) == learner.training.steps(learner.row_count("train")) < 24 / 4
    layouts = []
    layout = unpadded.layout
    monkeypatch.setattr(
        unpadded, "layout", lambda *args: layouts.append(layout(*args)) or layouts[-1]
    )
    live = list(learner.parameters().values())
    for step in steps:
        [packed] = job.batches(0, step)
        loss = learner.objective.loss(learner, packed)
        gradients = torch.autograd.grad(loss, live)
        apart = [learner.batch([learner.examples("train")[index]]) for index in step[0]]
        losses = [learner.objective.loss(learner, one) * one.items / packed.items for one in apart]
        torch.testing.assert_close(loss, sum(losses), atol=1e-6, rtol=1e-5)
        expected = torch.autograd.grad(sum(losses), live)
        torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-4)
    assert any(one is not None and one.count > 4 for one in layouts)


def test_a_run_packs_up_to_max_length(experiment_file: Path) -> None:
    words = ["train.packing=true", "model.max_length=64", "data.partition=iid"]
    learner = simulate(load(experiment_file, words)).clients["silo-1"].learner
    assert learner.max_length == 64
    assert learner.row_count("train") < len(learner.examples("train")) / 2


@pytest.mark.parametrize(
    "words",
    [
        ["adapter={prompt_tuning: {num_virtual_tokens: 4}}", "model.max_length=64"],
        ["model.products=plain"],
        ["adapter={lora: {r: 2, layers_to_transform: [1]}}"],
    ],
)
def test_packing_is_refused_where_rows_are_padded(experiment_file: Path, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"train\.packing puts examples behind each other, but"):
        simulate(load(experiment_file, ["train.packing=true", *words]))


def test_a_silo_counts_the_most_examples_that_packed_rows_may_hold() -> None:
    assert SETTINGS.most_examples(100) == 100
    assert replace(SETTINGS, max_steps=3).most_examples(100) == 3 * 2 * 100
    assert replace(SETTINGS, max_steps=3, packing=False).most_examples(100) == 6
