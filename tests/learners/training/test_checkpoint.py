"""Training that was killed goes on from its last note, and ends as if nothing had happened."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clients import client, rows
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors

STEPS = 6


class KilledError(Exception):
    """Stands for the end of a process."""


class Counting(Sft):
    """Counts its losses."""

    losses = 0

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        self.losses += 1
        return super().loss(learner, batch)


class Dying(Sft):
    """Ends after so many losses."""

    def __init__(self, losses: int) -> None:
        self.left = losses

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        if not self.left:
            raise KilledError
        self.left -= 1
        return super().loss(learner, batch)


Counting.__name__ = Dying.__name__ = Sft.__name__  # else it would be another training


@pytest.fixture(scope="module")
def backbone(tiny_llama: object) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))


def learner(backbone: Backbone, folder: Path | None, **own: Any) -> AdaptedModel:
    """A client with dropout, momenta that it keeps, and a note after every step."""
    own = {"max_steps": STEPS, "optimizer_state": "keep", "max_grad_norm": 0.5} | own
    made = client(backbone, "a", rows(0, 12), Lora(r=4, lora_dropout=0.3), **own)
    noted = TrainingCheckpoint(folder, 0.0) if folder else None
    return replace(made, optimizer_state={}, checkpoint=noted)


def trained(own: AdaptedModel, start: Tensors) -> tuple[Tensors, TrainResult]:
    """What a whole training comes to, but for its seconds."""
    own.load(start)
    fit = own.fit()
    return own.tensors(), replace(fit, spent={})


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize("dies", [0, 1, 4])
def test_a_killed_training_ends_bit_for_bit_as_a_whole_one(
    backbone: Backbone, tmp_path: Path, optim: str, dies: int
) -> None:
    momentum = 0.9 if optim == "sgd" else 0.0
    whole = learner(backbone, None, optim=optim, momentum=momentum)
    start = whole.initial()
    expected, fit = trained(whole, start)
    broken = learner(backbone, tmp_path, optim=optim, momentum=momentum)
    broken.load(start)
    with pytest.raises(KilledError):
        broken.fit(objective=Dying(dies))
    again = learner(backbone, tmp_path, optim=optim, momentum=momentum)
    counted = Counting()
    again.load(start)
    done = again.fit(objective=counted)
    assert counted.losses == STEPS - dies
    assert replace(done, spent={}) == fit
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.tensors().items())
    found, expected = again.optimizer_state, whole.optimizer_state
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_a_damaged_note_is_left_aside(
    backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = learner(backbone, None).initial()
    expected, fit = trained(learner(backbone, None), start)
    broken = learner(backbone, tmp_path)
    broken.load(start)
    with pytest.raises(KilledError):
        broken.fit(objective=Dying(3))
    [file] = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found, told = trained(learner(backbone, tmp_path), start)
    assert "is damaged; the round's training begins anew" in caplog.text
    assert told == fit
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_another_training_finds_nothing(backbone: Backbone, tmp_path: Path) -> None:
    """One from elsewhere, the second of a request, and that of another round."""
    first = learner(backbone, tmp_path)
    start = first.initial()
    moved = {name: tensor + 0.1 for name, tensor in start.items()}
    first.load(start)
    with pytest.raises(KilledError):
        first.fit(objective=Dying(3))
    elsewhere, counted = learner(backbone, tmp_path), Counting()
    elsewhere.load(moved)
    elsewhere.fit(objective=counted)
    assert counted.losses == STEPS
    second, counted = learner(backbone, tmp_path), Counting()
    second.load(start)
    second.fit()
    second.load(start)
    second.fit(objective=counted)
    assert counted.losses == STEPS
    assert len(list(tmp_path.iterdir())) == 3
    later = replace(learner(backbone, tmp_path), context=RoundContext(7, 3, "a"))
    later.load(start)
    later.fit()
    assert [file.name[:11] for file in tmp_path.iterdir()] == ["round-00003"]


def test_a_short_training_writes_nothing(backbone: Backbone, tmp_path: Path) -> None:
    short = replace(learner(backbone, None), checkpoint=TrainingCheckpoint(tmp_path, 60.0))
    short.load(short.initial())
    short.fit()
    assert list(tmp_path.iterdir()) == []
