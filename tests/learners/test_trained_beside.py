"""Two models that are trained in the same steps, on one base model and on two."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from clients import client, rows
from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import NO_ADAPTER, Backbone
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.tensors.named import Tensors

STEPS, LIMIT = 4, 0.05  # a norm that every gradient here exceeds
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS,
    "max_grad_norm": LIMIT,
    "gradient_accumulation_steps": 2,
    "optimizer_state": "keep",
}


class KilledError(Exception):
    """Stands for the end of a process."""


@dataclass
class Both(Objective):
    """The sum of both models' losses; it ends after so many."""

    batchable = False
    left: int = 1000

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        if not self.left:
            raise KilledError
        self.left -= 1
        return Sft().loss(learner, batch) + Sft().loss(learner.models["mentor"], batch)


@dataclass
class Scaled(Objective):
    """The loss times a factor that is trained, too."""

    batchable = False
    factor: Parameter = field(default_factory=lambda: Parameter(torch.tensor(1.0)))

    def parameters(self) -> dict[str, Parameter]:
        return {"factor": self.factor}

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return Sft().loss(learner, batch) * 0 + self.factor.square() / 2


@pytest.fixture(scope="module")
def backbone(tiny_llama: Path) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))


@pytest.fixture(scope="module")
def bases(backbone: Backbone, tiny_llama: Path) -> dict[str, Backbone]:
    """The base model of the mentor, by whether it is the learner's own."""
    other = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    return {"shared": backbone, "other": other}


def pair(
    backbone: Backbone, other: Backbone, dropout: float = 0.0, **settings: Any
) -> AdaptedModel:
    """A learner with a mentor of another rank; of the two no name of a tensor differs."""
    settings = SETTINGS | settings
    adapters = Lora(r=4, lora_dropout=dropout), Lora(r=2, lora_dropout=dropout)
    learner = client(backbone, "a", rows(0, 12), adapters[0], **settings)
    mentor = client(other, "a", rows(0, 12), adapters[1], **settings)
    return replace(learner, models={"mentor": mentor})


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def both(learner: AdaptedModel) -> list[AdaptedModel]:
    return [learner, learner.models["mentor"]]


@pytest.mark.parametrize("base", ["shared", "other"])
@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_each_is_trained_as_by_itself(
    backbone: Backbone, bases: dict[str, Backbone], base: str, optim: str
) -> None:
    """To the last bit, with a norm of its own and its optimizer's state of the round before."""
    own = {"optim": optim, "momentum": 0.9 if optim == "sgd" else 0.0}
    learner = pair(backbone, bases[base], **own)
    expected = []
    for model in both(learner):
        model.load(model.initial())
        for _ in range(2):
            model.fit()
        expected.append((model.tensors(), dict(model.optimizer_state)))
        model.load(model.initial())
        model.optimizer_state.clear()
    for _ in range(2):
        result = learner.fit(objective=Both(), beside=("mentor",))
    assert result.steps == STEPS and result.sum_clipped_lr < result.sum_lr
    for model, (tensors, state) in zip(both(learner), expected, strict=True):
        assert equal(model.tensors(), tensors)
        assert equal(model.optimizer_state, state) and state


def test_a_model_that_is_not_named_stays_as_it_is(backbone: Backbone) -> None:
    learner = pair(backbone, backbone)
    learner.fit(objective=Both())
    mentor = learner.models["mentor"]
    assert equal(mentor.tensors(), mentor.initial())
    assert not equal(learner.tensors(), learner.initial())


@pytest.mark.parametrize("base", ["shared", "other"])
def test_dropout_is_on_in_both(backbone: Backbone, bases: dict[str, Backbone], base: str) -> None:
    ends = []
    for dropout in (0.0, 0.5):
        learner = pair(backbone, bases[base], dropout)
        torch.manual_seed(3)
        for model in both(learner):  # without dropout, both start from the same place
            drawn = {name: torch.full_like(t, 0.01) for name, t in model.tensors().items()}
            model.load(drawn)
        learner.fit(objective=Both(), beside=("mentor",))
        ends.append([model.tensors() for model in both(learner)])
    assert not equal(ends[0][0], ends[1][0]) and not equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("dies", [1, 5])
@pytest.mark.parametrize("base", ["shared", "other"])
def test_a_killed_training_of_both_goes_on_bit_for_bit(
    backbone: Backbone, bases: dict[str, Backbone], tmp_path: Path, base: str, dies: int
) -> None:
    def begun(folder: Path | None) -> AdaptedModel:
        made = pair(backbone, bases[base], dropout=0.3)
        return replace(made, checkpoint=TrainingCheckpoint(folder, 0.0) if folder else None)

    def fitted(learner: AdaptedModel, objective: Both) -> TrainResult:
        for model, start in zip(both(learner), starts, strict=True):
            model.load(start)
        return replace(learner.fit(objective=objective, beside=("mentor",)), spent={})

    whole = begun(None)
    starts = [model.initial() for model in both(whole)]
    result = fitted(whole, Both())
    with pytest.raises(KilledError):
        fitted(begun(tmp_path), Both(dies))
    again, objective = begun(tmp_path), Both()
    assert fitted(again, objective) == result
    assert 1000 - objective.left == 2 * (STEPS - dies // 2)
    for one, other in zip(both(again), both(whole), strict=True):
        assert equal(one.tensors(), other.tensors())
        assert equal(one.optimizer_state, other.optimizer_state) and one.optimizer_state


def test_parameters_of_the_loss_are_trained_by_their_own_norm(backbone: Backbone) -> None:
    """d(f²/2)/df = f is clipped to LIMIT in each step, so f falls by rate·LIMIT."""
    learner = pair(backbone, backbone, optim="sgd", momentum=0.5, learning_rate=1.0)
    objective = Scaled()
    learner.fit(objective=objective, steps=1)
    assert float(objective.factor.detach()) == pytest.approx(1 - LIMIT, abs=1e-5)
    assert "objective.factor:momentum_buffer" in learner.optimizer_state
    learner.fit(objective=objective, steps=1)  # with half of the last step's momentum
    assert float(objective.factor.detach()) == pytest.approx(1 - LIMIT * 2.5, abs=1e-5)


def test_a_number_of_steps_takes_the_place_of_the_settings(backbone: Backbone) -> None:
    learner = pair(backbone, backbone)
    assert learner.fit(objective=Both(), beside=("mentor",), steps=2).steps == 2
    assert learner.fit().steps == STEPS


def test_a_frozen_model_cannot_be_trained_beside(backbone: Backbone) -> None:
    learner = pair(backbone, backbone)
    frozen = replace(learner.models["mentor"], adapter=NO_ADAPTER, base_only=True)
    with pytest.raises(UserError, match=r"has no adapter here, .*give it one in `models`"):
        replace(learner, models={"mentor": frozen}).fit(objective=Both(), beside=("mentor",))


def test_rows_that_are_hidden_are_read_by_one_training_alone(backbone: Backbone) -> None:
    learner = replace(pair(backbone, backbone), sealed=True)
    with pytest.raises(UserError, match="choose another algorithm"):
        learner.fit(objective=Both(), beside=("mentor",))


def test_layers_computed_again_have_one_adapter_of_a_base(tiny_llama: Path) -> None:
    settings = BaseModelSettings(
        str(tiny_llama), bf16=False, device="cpu", gradient_checkpointing=True
    )
    base, other = load(settings), load(settings)
    with pytest.raises(UserError, match="turn it off for one of the models"):
        pair(base, base).fit(objective=Both(), beside=("mentor",))
    assert pair(base, other).fit(objective=Both(), beside=("mentor",)).steps == STEPS
