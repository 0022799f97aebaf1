"""Adapters on one base model: none disturbs another, in scores, in training, and in gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import NO_ADAPTER, Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.tensors.named import Tensors

OTHERS = [Lora(r=4), Lora(r=2, target_modules=("q_proj",))]


@pytest.fixture
def backbone(tiny_llama: Path) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False))


def two(backbone: Backbone, other: Adapter) -> tuple[AdaptedModel, AdaptedModel]:
    """Two learners on one base model, both trained a little."""
    first = client(backbone, "c1", rows(1, 12))
    second = client(backbone, "c1", rows(2, 12), other)
    for learner in (first, second):
        learner.fit()
    return first, second


def logits(learner: AdaptedModel) -> Tensor:
    with torch.no_grad():
        return learner.forward(learner.batch(learner.examples("train")[:3]))


def gradients(learner: AdaptedModel) -> dict[str, Tensor | None]:
    result = {name: p.grad for name, p in learner.parameters().items()}
    for parameter in learner.parameters().values():
        parameter.grad = None
    return result


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("other", OTHERS)
def test_training_one_leaves_the_other_as_it_is(backbone: Backbone, other: Adapter) -> None:
    first, second = two(backbone, other)
    before, tensors = logits(first), first.tensors()
    second.fit()
    assert torch.equal(logits(first), before) and equal(first.tensors(), tensors)


@pytest.mark.parametrize("other", OTHERS)
def test_one_trains_beside_the_other_as_alone(tiny_llama: Path, other: Adapter) -> None:
    alone = client(load(BaseModelSettings(str(tiny_llama), bf16=False)), "c1", rows(1, 12))
    alone.fit()
    shared = load(BaseModelSettings(str(tiny_llama), bf16=False))
    first, second = client(shared, "c1", rows(1, 12)), client(shared, "c1", rows(2, 12), other)
    second.fit()
    first.fit()
    assert equal(first.tensors(), alone.tensors())


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("between", [False, True])
def test_a_loss_of_both_has_the_gradients_of_each(
    backbone: Backbone, other: Adapter, between: bool
) -> None:
    first, second = two(backbone, other)
    expected = []
    for learner in (first, second):
        learner.forward(learner.batch(learner.examples("train")[:3])).square().mean().backward()
        expected.append(gradients(learner))
    losses = [
        learner.forward(learner.batch(learner.examples("train")[:3])).square().mean()
        for learner in (first, second)
    ]
    if between:
        first.base_logits(first.batch(first.examples("train")[:2]))
    (losses[0] + losses[1]).backward()
    for learner, wanted in zip((first, second), expected, strict=True):
        found = gradients(learner)
        for name, gradient in wanted.items():
            own = found[name]
            assert own is not None and gradient is not None
            torch.testing.assert_close(own, gradient)


def test_adapters_of_two_kinds_are_refused(backbone: Backbone) -> None:
    backbone.attach(Lora(r=2), 0)
    with pytest.raises(UserError, match="this one has lora and would get"):
        backbone.attach(Houlsby(), 0)
    backbone.attach(Lora(r=2), 1)


@pytest.mark.parametrize("attached", [False, True])
def test_a_frozen_model_is_the_base_alone(backbone: Backbone, attached: bool) -> None:
    trained = client(backbone, "c1", rows(1, 12)) if attached else None
    template = trained or client(backbone, "c1", rows(1, 12))
    if trained is None:
        backbone.detach(template.adapter)
    else:
        trained.fit()
    frozen = replace(template, adapter=NO_ADAPTER, base_only=True)
    if trained is not None:
        batch = trained.batch(trained.examples("train")[:3])
        assert torch.equal(frozen.forward(batch), trained.base_logits(batch))
        assert not torch.equal(frozen.forward(batch), logits(trained))
    assert (frozen.parameters(), frozen.tensors(), frozen.initial()) == ({}, {}, {})
    prompts = [replace(example, prompt=len(example)) for example in rows(3, 2)]
    assert len(frozen.generate(prompts, 3)) == 2
    frozen.load({})
    with pytest.raises(UserError, match="has no adapter here, so nothing of it can be trained"):
        frozen.fit()


def test_a_request_has_copies_of_the_models_beside_it(backbone: Backbone) -> None:
    first, second = two(backbone, Lora(r=4))
    whole = replace(first, models={"mentor": second})
    request = whole.for_request(replace(first.context, round=7), {})
    mentor = request.models["mentor"]
    assert mentor.context.round == 7 and second.context.round == 2
    state: dict[str, Tensor] = {}
    mentor.keep_optimizer_state(state)
    mentor = replace(mentor, training=replace(mentor.training, optimizer_state="keep"))
    mentor.fit()
    assert state and not second.optimizer_state


def test_a_residual_of_one_does_not_reach_the_other(backbone: Backbone) -> None:
    """Nor does the other's forward pass, in the middle of training, take it from the first."""
    first, second = two(backbone, Lora(r=4))
    plain = logits(first), logits(second)
    residual = {
        name: torch.full_like(tensor, 0.1)
        for name, tensor in first.tensors().items()
        if name.endswith(("lora_A.weight", "lora_B.weight"))
    }
    first.set_residual(residual)
    changed = logits(first)
    assert not torch.equal(changed, plain[0])
    with backbone.with_residual(residual):
        assert torch.equal(logits(second), plain[1])
        assert torch.equal(logits(first), changed)
        second.set_residual({name: 2 * tensor for name, tensor in residual.items()})
        assert not torch.equal(logits(second), plain[1])
        assert torch.equal(logits(first), changed)
    first.set_residual({})
    assert torch.equal(logits(first), plain[0])
