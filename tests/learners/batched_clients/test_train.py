"""Clients that train together end where each would have ended by itself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import choices, client, rows
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import train
from hanse.learners.batched_clients.batched_layers import Drop
from hanse.learners.batched_clients.member import Member
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.tensors.named import squared_distance


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load(
        BaseModelSettings(str(request.getfixturevalue(request.param)), bf16=False, device="cpu")
    )


def moved(learner: AdaptedModel, seed: int) -> dict[str, Tensor]:
    """A start of its own, with B other than zero."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in learner.tensors().items()
    }


def together(learners: list[AdaptedModel], starts: list[Mapping[str, Tensor]], penalty: Any = None):
    """What each learns in a cohort: its tensors, and what it has done."""
    members: list[Member] = []
    for learner, start in zip(learners, starts, strict=True):
        learner.load(start)
        waiting = replace(
            learner, together=lambda m: members.append(m) or TrainResult(0, 0, 0, 0, 0)
        )
        waiting.fit(penalty)
    assert len(members) == len(learners)
    fits = train.train(members)
    return [dict(member.tensors) for member in members], fits


def alone(learners: list[AdaptedModel], starts: list[Mapping[str, Tensor]], penalty: Any = None):
    found, fits = [], []
    for learner, start in zip(learners, starts, strict=True):
        learner.load(start)
        fits.append(learner.fit(penalty))
        found.append(learner.tensors())
    return found, fits


def compare(learners: list[AdaptedModel], penalty: Any = None, within: float = 1e-5) -> None:
    starts = [moved(learner, index) for index, learner in enumerate(learners)]
    keeps = [dict(learner.optimizer_state) for learner in learners]
    single, done = alone(learners, starts, penalty)
    states = [dict(learner.optimizer_state) for learner in learners]
    for learner, kept in zip(learners, keeps, strict=True):
        learner.optimizer_state.clear()
        learner.optimizer_state.update(kept)
    joint, fits = together(learners, starts, penalty)
    for start, one, other in zip(starts, single, joint, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert not torch.equal(one[name], start[name])
            torch.testing.assert_close(other[name], one[name], atol=within, rtol=0)
    for one, other in zip(done, fits, strict=True):
        assert (one.steps, one.examples, one.tokens) == (other.steps, other.examples, other.tokens)
        assert one.sum_lr == pytest.approx(other.sum_lr)
        assert one.sum_clipped_lr == pytest.approx(other.sum_clipped_lr, rel=1e-4)
        assert one.sum_a == pytest.approx(other.sum_a)
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
    for learner, state in zip(learners, states, strict=True):
        assert learner.optimizer_state.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(learner.optimizer_state[name], value, atol=within, rtol=0)


def test_like_clients(backbone: Backbone) -> None:
    compare([client(backbone, f"c{n}", rows(n, 20)) for n in range(3)])


def test_unlike_clients(backbone: Backbone) -> None:
    """Batches, steps, accumulation, schedules, clipping and decay of their own."""
    own: list[dict[str, Any]] = [
        {"max_steps": None, "num_train_epochs": 1.3, "lr_scheduler_type": "cosine"},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        {"max_grad_norm": 0.0, "weight_decay": 0.1, "max_steps": 1, "warmup_ratio": 0.5},
        {"per_device_train_batch_size": 1, "max_grad_norm": 0.01},
    ]
    compare([client(backbone, f"c{n}", rows(n, 9 + n), **o) for n, o in enumerate(own)])


def test_unequal_ranks_and_scalings(backbone: Backbone) -> None:
    loras = [Lora(r=2), Lora(r=8, lora_alpha=4), Lora(r=5)]
    compare([client(backbone, f"c{n}", rows(n, 12), lora) for n, lora in enumerate(loras)])


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_sgd_with_momentum(backbone: Backbone, state: str) -> None:
    own = {"optim": "sgd", "momentum": 0.9, "optimizer_state": state, "max_grad_norm": 0.01}
    learners = [client(backbone, f"c{n}", rows(n, 12), **own) for n in range(2)]
    compare(learners)
    assert bool(learners[0].optimizer_state) == (state == "keep")
    compare(learners)


def test_adam_goes_on_with_what_it_kept(backbone: Backbone) -> None:
    learners = [client(backbone, f"c{n}", rows(n, 12), optimizer_state="keep") for n in range(3)]
    learners[2].fit()  # the others' first round is this one's second
    compare(learners)
    compare(learners)


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_a_part_is_trained_and_the_rest_left(backbone: Backbone, state: str) -> None:
    """Each client's own frozen A's, of unequal ranks, then its B's; decay would move either."""
    own = {"optimizer_state": state, "weight_decay": 0.1}
    learners = [
        client(backbone, f"c{n}", rows(n, 12), Lora(r=2 + n), max_steps=2 + n, **own)
        for n in range(3)
    ]
    for part in ("lora_A", "lora_B"):
        for number, learner in enumerate(learners):
            learner.freeze({})
            held = {n: t for n, t in moved(learner, 10 + number).items() if part in n}
            learner.freeze(held)
            assert learner.tensors().keys().isdisjoint(held)
        compare(learners)
    if state == "keep":  # what was not trained keeps what it had
        kept = {key.rpartition(":")[0] for key in learners[0].optimizer_state}
        assert kept == learners[0].backbone.parameters(learners[0].adapter).keys()


def test_penalty(backbone: Backbone) -> None:
    learners = [client(backbone, f"c{n}", rows(n, 12)) for n in range(2)]
    centre = learners[0].tensors()
    compare(learners, lambda live: 5.0 * squared_distance(live, centre))


@pytest.mark.parametrize("words", [((5,), (9,)), ((5, 6), (9,), (7, 8, 2))])
def test_choices(backbone: Backbone, words: tuple[tuple[int, ...], ...]) -> None:
    learners = [
        client(backbone, f"c{n}", choices(n, 12, words), objective=Classify()) for n in range(3)
    ]
    compare(learners)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 2, "max_steps": 5},
        {"per_device_train_batch_size": 7, "max_steps": 1},
    ],
)
def test_dropout_is_each_clients_own(backbone: Backbone, beside: dict[str, Any]) -> None:
    """As alone with the same random numbers, whoever else is there."""
    lora = Lora(r=4, lora_dropout=0.4)
    others = [client(backbone, f"c{n}", rows(n, 12, 24 + n), lora, **beside) for n in (1, 2)]
    learners = [client(backbone, "c0", rows(0, 12), lora), *others]
    starts = [moved(learner, index) for index, learner in enumerate(learners)]
    joint, _ = together(learners, starts)
    for index in range(3):
        single, _ = together(learners[index : index + 1], starts[index : index + 1])
        for name, tensor in single[0].items():
            torch.testing.assert_close(joint[index][name], tensor, atol=1e-5, rtol=0)
    undropped = replace(learners[0], adapter=backbone.attach(Lora(r=4), 0))
    plain, _ = together([undropped], starts[:1])
    assert not torch.allclose(plain[0][name], joint[0][name], atol=1e-4)


def test_dropout_does_not_depend_on_how_rows_are_laid_out() -> None:
    """OPT's feed-forward layers see all tokens in one row, a pooler sees one thing of each row."""
    drop = Drop(shares=(0.5, 0.0, 0.3), seeds=(3, 4, 5), shapes=((2, 5), (3, 7), (1, 4)))
    inputs = torch.rand(9, 7, 6) + 1  # (K·R, T, H)
    found = drop(inputs, layer=2)
    torch.testing.assert_close(drop(inputs.flatten(0, 1), layer=2), found.flatten(0, 1))
    factors = (found / inputs).view(3, 3, 7, 6)
    own = torch.empty(2, 5, 6).bernoulli_(0.5, generator=torch.Generator().manual_seed(5)) * 2
    torch.testing.assert_close(factors[0, :2, :5], own)
    assert 0 < (factors[2, :1, :4] == 0).float().mean() < 0.6
    assert (factors[1] == 1).all() and (factors[2, 1:] == 1).all() and (factors[0, 2] == 1).all()
    whole = drop(inputs[:, 0], layer=2) / inputs[:, 0]
    assert (whole.view(3, 3, 6)[0, :2] == 0).any() and (whole.view(3, 3, 6)[1] == 1).all()


def test_a_frozen_prefix_is_skipped_together(backbone: Backbone) -> None:
    """Layers below all adapters are passed once for each row, whoever trains with whom."""
    lora = Lora(r=4, target_modules=r".*\.1\..*(q_proj|c_attn)")
    learners = [client(backbone, f"c{n}", rows(n, 8), lora, max_steps=6) for n in range(3)]
    compare(learners, within=5e-5)  # rounding: the rows pass the first layer in other company
