"""The gradient of each row is what a loop over the rows gives, and nothing else learns of hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import choices, client, rows
from hanse.errors import UserError
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.backbone import Backbone
from hanse.learners.kernels import lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.sft import Sft
from hanse.learners.private_training import private_gradients
from hanse.learners.private_training.private_gradients import PrivateGradients
from hanse.learners.training.timer import Stopwatch
from hanse.tensors.named import norm

pytestmark = pytest.mark.extras
pytest.importorskip("opacus")
WORDS = ((5,), (6,), (7,))
CLASSES = ((0,), (1,), (2,))
LONG_WORDS = ((5, 8), (6,), (7, 9, 4))


@dataclass(frozen=True)
class Seen(RowProtection):
    """Draws the same rows in each step, limits none, adds no noise, and keeps the norms."""

    rows: Sequence[int]
    norms: list[Tensor] = field(default_factory=list)

    def draw(self, sampling: Sampling) -> Sequence[int]:
        return self.rows

    def shares(self, norms: Tensor) -> Tensor:
        self.norms.append(norms)
        return torch.ones_like(norms)

    def dropout_seed(self) -> int:
        return 3

    def noise(self, shape: torch.Size) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Callable[..., Backbone]:
    def loaded(name: str, classes: int = 0) -> Backbone:
        place = str(request.getfixturevalue(name))
        return load(BaseModelSettings(place, bf16=False, device="cpu"), classes=classes)

    return loaded


CASES = {
    "llama lora": ("tiny_llama", Lora(r=4), Sft(), rows(1, 6), 0),
    "llama lora on all": (
        "tiny_llama",
        Lora(r=2, target_modules="all-linear"),
        Sft(),
        rows(1, 6),
        0,
    ),
    "gpt2 lora": ("tiny_gpt2", Lora(r=4), Sft(), rows(2, 6), 0),
    "llama bottleneck": ("tiny_llama", Houlsby(reduction_factor=4), Sft(), rows(3, 6), 0),
    "gpt2 bottleneck": ("tiny_gpt2", Pfeiffer(reduction_factor=4), Sft(), rows(3, 6), 0),
    "llama words": ("tiny_llama", Lora(r=4), Classify(), choices(4, 6, WORDS), 0),
    "llama long words": ("tiny_llama", Lora(r=4), Classify(), choices(4, 6, LONG_WORDS), 0),
    "bert lora": ("tiny_bert", Lora(r=4), Classify(), choices(5, 6, CLASSES), 3),
    "bert bottleneck": (
        "tiny_bert",
        Houlsby(reduction_factor=4),
        Classify(),
        choices(5, 6, CLASSES),
        3,
    ),
    "bert head": ("tiny_bert", Head(), Classify(), choices(6, 6, CLASSES), 3),
}


def moved(learner: AdaptedModel) -> None:
    """Give a learner tensors other than its first ones, of which many are zero."""
    draw = torch.Generator().manual_seed(3)
    start = learner.tensors().items()
    learner.load({n: t + 0.1 * torch.randn(t.shape, generator=draw) for n, t in start})


def by_loop(learner: AdaptedModel) -> list[dict[str, Tensor]]:
    """The gradient of each example's loss, one after another."""
    gradients = []
    for example in learner.examples("train"):
        for parameter in learner.parameters().values():
            parameter.grad = None
        learner.objective.loss(learner, learner.batch([example])).backward()
        live = learner.parameters().items()
        gradients.append({n: p.grad.clone() for n, p in live if p.grad is not None})
    for parameter in learner.parameters().values():
        parameter.grad = None
    return gradients


@contextmanager
def opened(learner: AdaptedModel, protection: RowProtection) -> Iterator[PrivateGradients]:
    job, backbone = learner.job(), learner.backbone
    with private_gradients.opened(job, backbone, learner.adapter, protection) as gradients:
        yield gradients


def learner_of(case: str, model: Callable[..., Backbone], **more: Any) -> AdaptedModel:
    name, adapter, objective, examples, classes = CASES[case]
    learner = client(model(name, classes), "c", examples, adapter, objective=objective, **more)
    moved(learner)
    return learner


@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_a_loop_over_rows(case: str, model: Callable[..., Backbone]) -> None:
    learner = learner_of(case, model)
    expected = by_loop(learner)
    protection = Seen(range(6))
    with opened(learner, protection) as gradients:
        part = gradients._batches(range(6))
        gradients._backward(part, Stopwatch(torch.device("cpu")))
        found = gradients._by_example(part)
        for at, wanted in enumerate(expected):
            for name, gradient in wanted.items():
                one = found[name][at].view_as(gradient)
                torch.testing.assert_close(one, gradient, atol=1e-5, rtol=1e-5)
        assert found.keys() == expected[0].keys()
        _, losses = gradients.compute(0, Stopwatch(torch.device("cpu")))
    sizes = [norm(one) for one in expected]
    assert min(sizes) > 1e-3
    assert sorted(torch.cat(protection.norms).tolist()) == pytest.approx(sorted(sizes), rel=1e-4)
    share = 1 / learner.sampling().expected  # of each example, in the step's gradient
    for name, parameter in learner.parameters().items():
        whole = sum(one[name] for one in expected if name in one) * share
        torch.testing.assert_close(parameter.grad, torch.as_tensor(whole), atol=1e-5, rtol=1e-5)
    assert float(losses) > 0


def test_nothing_of_the_hooks_is_left(model: Callable[..., Backbone]) -> None:
    learner = learner_of("llama lora", model)
    inner, live = learner.backbone.model, learner.parameters()
    layers = [m for m in inner.modules() if "forward" in vars(m)]
    names = [name for name, _ in inner.named_parameters()]
    known = {id(m): {*vars(m)} for m in inner.modules()}
    with opened(learner, Seen(range(4))) as gradients:
        assert not any(getattr(m.forward, "func", None) is lora._forward for m in layers)
        gradients.compute(0, Stopwatch(torch.device("cpu")))
    assert names == [name for name, _ in inner.named_parameters()]
    assert {id(m): {*vars(m)} for m in inner.modules()} == known
    assert any(getattr(m.forward, "func", None) is lora._forward for m in layers)
    assert not any({"grad_sample", "_forward_counter"} & vars(p).keys() for p in live.values())
    assert not any(m.training for m in inner.modules())
    assert not any(m._forward_hooks or m._backward_hooks for m in inner.modules())


def test_an_adapter_without_gradients_of_rows(model: Callable[..., Backbone]) -> None:
    learner = client(model("tiny_llama"), "c", rows(1, 3), IA3())
    with (
        pytest.raises(UserError, match="limits the gradient of each row"),
        opened(learner, Seen([0])),
    ):
        pass


def test_a_trained_module_that_sees_all_rows_as_one(model: Callable[..., Backbone]) -> None:
    """The output layer gets the labelled positions of all rows behind each other."""
    learner = client(model("tiny_llama"), "c", rows(1, 3), Lora(r=2, target_modules=("lm_head",)))
    with pytest.raises(UserError, match="is not known row by row"), opened(learner, Seen([0])):
        pass


def test_a_model_whose_rows_meet(
    model: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of("bert head", model)
    plain = Backbone.logits

    def mixed(*args: Any) -> Tensor:
        logits = plain(*args)
        return logits + logits.mean(0)

    monkeypatch.setattr(Backbone, "logits", mixed)
    with (
        pytest.raises(UserError, match="each row of a batch by itself"),
        opened(learner, Seen([0])),
    ):
        pass
