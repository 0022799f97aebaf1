"""Examples that an objective makes in training: when, with which seeds, and whom they concern."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.data.example import Example
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.flops import per_token
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

ROWS = [
    Example(tuple(range(k, k + 6)), (-100,) * 3 + tuple(range(k + 3, k + 6)), prompt=3)
    for k in range(2, 14)
]


class Killed(Exception):  # noqa: N818
    """The process ends here."""


@dataclass
class Imitate(Objective):
    """Learns the model's own answers; keeps what it has seen."""

    seeds: list[int] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    draws: int = 0
    ends: int = 10**9

    def rollout(self, learner: Learner, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        assert isinstance(learner, AdaptedModel)
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in learner.attached.dropout_modules)
        self.seeds.append(seed)
        if len(self.seeds) > self.ends:
            raise Killed
        torch.rand(self.draws)
        return learner.continuations(examples, 4, 1.0, seed)

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        assert isinstance(learner, AdaptedModel)
        assert all(module.training for module in learner.attached.dropout_modules)
        self.seen.append(batch.ids.tolist())
        return Sft().loss(learner, batch)


def _learner(folder: Path, objective: Objective, **settings: Any) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    adapter = backbone.attach(Lora(r=4, lora_dropout=0.3), seed=0)
    training = TrainingSettings(
        learning_rate=0.02,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        max_steps=4,
        **settings,
    )
    splits, context = {"train": ROWS}, RoundContext(0, 1, "a")
    return AdaptedModel(backbone, adapter, splits, training, objective, context, 1, {})


def test_every_micro_batch_is_rolled_out_with_a_seed_of_its_own(tiny_llama: Path) -> None:
    objective = Imitate()
    learner = _learner(tiny_llama, objective)
    state = torch.get_rng_state()
    result = learner.fit()
    assert len(set(objective.seeds)) == len(objective.seeds) == 4 * 2
    assert torch.equal(torch.get_rng_state(), state)
    assert result.examples == 4 * 6
    prompts = {row.ids[:3] for row in ROWS}
    assert all(tuple(ids[:3]) in prompts for batch in objective.seen for ids in batch)
    other = Imitate()
    moved = replace(_learner(tiny_llama, other), context=RoundContext(0, 2, "a"))
    moved.fit()
    assert not set(other.seeds) & set(objective.seeds)


def test_draws_of_a_rollout_leave_the_dropout_of_training_as_it_is(tiny_llama: Path) -> None:
    ends = []
    for objective in (Imitate(), Imitate(draws=100)):
        learner = _learner(tiny_llama, objective)
        learner.fit()
        ends.append(learner.tensors())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_training_that_is_killed_goes_on_bit_identically(
    tiny_llama: Path, tmp_path: Path
) -> None:
    whole = _learner(tiny_llama, Imitate())
    whole.fit()
    for objective in (Imitate(ends=5), Imitate()):  # killed in the third step of four
        learner = _learner(tiny_llama, objective)
        learner.checkpoint = TrainingCheckpoint(tmp_path, every=0.0)
        try:
            learner.fit()
        except Killed:
            continue
        assert len(objective.seeds) == 2 * 2
        expected = whole.tensors()
        assert all(torch.equal(t, expected[name]) for name, t in learner.tensors().items())


def test_clients_that_roll_out_train_by_themselves(tiny_llama: Path) -> None:
    class Declared(Imitate):
        batchable = True

    assert Sft.batchable
    assert not Imitate.batchable and not Declared.batchable
    assert not _learner(tiny_llama, Imitate()).member().joins
    assert _learner(tiny_llama, Sft()).member().joins
    assert not Sft().rolls_out


def test_an_empty_rollout_is_refused(tiny_llama: Path) -> None:
    class Silent(Objective):
        def rollout(self, learner: Learner, examples: Sequence[Any], seed: int) -> Sequence[Any]:
            return []

        def loss(self, learner: Learner, batch: Any) -> Tensor:
            raise AssertionError

    with pytest.raises(TypeError, match=r"Silent.rollout has returned no example"):
        _learner(tiny_llama, Silent()).fit()


def test_operations_are_counted_on_what_the_loss_gets(tiny_llama: Path) -> None:
    objective = Imitate()
    learner = _learner(tiny_llama, objective)
    with learner.backbone.with_dropout(learner.adapter):
        assert per_token(learner, objective, ROWS)["train_flops_per_token"] > 0
    [ids] = objective.seen
    assert tuple(ids[0][:3]) in {row.ids[:3] for row in ROWS}
