"""Training that hides rows: what a loop over rows would do, once, and then the rows are closed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from clients import choices, client, rows
from hanse.errors import UserError
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.loop import fit
from hanse.tensors.named import squared_distance
from row_loop import RowLoop

pytestmark = pytest.mark.extras
pytest.importorskip("opacus")
CLASSES = ((0,), (1,), (2,))
STEPS: list[list[int]] = [[0, 5, 2, 7, 1], [], [3], [6, 4, 0]]


@dataclass
class Known(RowProtection):
    """Known rows for each step, a limit, and noise that follows from a seed."""

    steps: Sequence[Sequence[int]] = field(default_factory=lambda: list(STEPS))
    clip: float = 0.3
    dropout: int = 3
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(5))

    def __str__(self) -> str:
        return "known rows"  # tells a training from others

    def draw(self, sampling: Sampling) -> Sequence[int]:
        assert sampling == Sampling(8, 0.5, 4)
        first, *self.steps = self.steps
        return first

    def shares(self, norms: Tensor) -> Tensor:
        return (self.clip / norms).clamp(max=1.0)

    def dropout_seed(self) -> int:
        return self.dropout

    def noise(self, shape: torch.Size) -> Tensor:
        return 0.1 * torch.randn(shape, generator=self.generator, dtype=torch.float64)


def learner_of(
    place: Path, lora: bool = True, adapter: Adapter | None = None, **more: Any
) -> AdaptedModel:
    settings = BaseModelSettings(str(place), bf16=False, device="cpu")
    train = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4}
    adapter = adapter or Lora(r=4)
    examples, objective, classes = rows(1, 8), None, 0
    if not lora:
        adapter, examples, classes = Head(), choices(2, 8, CLASSES), 3
        objective = Classify()
    own = {"objective": objective} if objective else {}
    return client(load(settings, classes=classes), "c", examples, adapter, **own, **train, **more)


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize(("name", "lora"), [("tiny_gpt2", True), ("tiny_bert", False)])
def test_it_is_a_loop_over_rows(
    name: str, lora: bool, optim: Any, request: pytest.FixtureRequest
) -> None:
    """Steps without rows, more rows than one part holds, a penalty, and weight decay."""
    learner = learner_of(request.getfixturevalue(name), lora, optim=optim, weight_decay=0.1)
    start = learner.tensors()
    centre = {n: t + 0.1 for n, t in start.items()}

    def penalty(trained: Any) -> Tensor:
        return 0.5 * squared_distance(trained, centre)

    job = replace(learner.job(penalty), settings=replace(learner.training, max_grad_norm=0.0))
    done = fit(job, None, RowLoop(job, Known()))
    expected = learner.tensors()
    learner.load(start)
    learner.protect(Known())
    result = learner.fit(penalty)
    for tensor, wanted in zip(learner.tensors().values(), expected.values(), strict=True):
        torch.testing.assert_close(tensor, wanted, atol=2e-5, rtol=1e-4)
    assert any(not torch.equal(expected[n], t) for n, t in start.items())
    assert (result.steps, result.examples, result.tokens) == (4, 9, done.tokens)
    assert result.loss == pytest.approx(done.loss, rel=1e-4)
    assert result.sum_clipped_lr == pytest.approx(result.sum_lr)  # max_grad_norm limits nothing


def test_dropout_follows_a_secret_seed_and_not_that_of_the_run(tiny_llama: Path) -> None:
    """With masks that others can compute, a row more changes those of all rows after it."""
    learner = learner_of(tiny_llama, adapter=Lora(r=4, lora_dropout=0.5))
    start, results = learner.tensors(), []
    for seed in (3, 3, 4):
        learner.load(start)
        learner.protect(Known(dropout=seed))
        learner.fit()
        learner.sealed = False
        results.append(torch.cat([tensor.flatten() for tensor in learner.tensors().values()]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_the_rows_are_closed_afterwards(tiny_llama: Path) -> None:
    learner = learner_of(tiny_llama)
    learner.protect(Known())
    with pytest.raises(UserError, match="hides a silo's rows in one training alone"):
        learner.examples("train")
    learner.fit()
    for reads in (learner.fit, lambda: learner.examples("train"), lambda: learner.lengths("train")):
        with pytest.raises(UserError, match="hides a silo's rows in one training alone"):
            reads()
    fresh = learner.for_request(learner.context, {})
    assert fresh.sealed  # a copy of a closed learner; an endpoint's own is never closed


def test_a_saved_adapter_is_opened_again_with_the_same_outputs(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    """Its tensors have the names that PEFT gives them."""
    learner = learner_of(tiny_gpt2)
    names = {*learner.tensors()}
    learner.protect(Known())
    learner.fit()
    assert {*learner.tensors()} == names
    learner.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {*saved} == names and not any("_module" in name for name in saved)
    learner.reopen(tmp_path)
    for name, tensor in learner.tensors().items():
        assert torch.equal(saved[name], tensor)


def test_a_killed_training_goes_on_from_its_last_step(tiny_llama: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_llama)
    start = learner.tensors()
    learner.protect(Known())
    learner.fit()
    whole = learner.tensors()
    learner.load(start)
    broken, protection = replace(learner, sealed=False), Known()
    broken.checkpoint = TrainingCheckpoint(tmp_path, 0.0)
    steps = protection.steps
    protection.steps = [*steps[:2], [99]]
    broken.protect(protection)
    with pytest.raises(IndexError):
        broken.fit()
    learner.load(start)
    resumed = replace(learner, sealed=False, checkpoint=TrainingCheckpoint(tmp_path, 0.0))
    later = Known(steps[2:], generator=protection.generator)
    resumed.protect(later)
    resumed.fit()
    for name, tensor in resumed.tensors().items():
        assert torch.equal(tensor, whole[name])
