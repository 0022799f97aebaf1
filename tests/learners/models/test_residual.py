"""A change of the frozen base, as factors, does what changed weights would do."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from clients import client, rows
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import train
from hanse.learners.load import load
from hanse.learners.models.residual import merged
from hanse.learners.models.settings import BaseModelSettings
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import Tensors, add_prefix
from learners.batched_clients.test_train import compare, moved


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load(
        BaseModelSettings(str(request.getfixturevalue(request.param)), bf16=False, device="cpu")
    )


def drawn(learner: AdaptedModel, seed: int = 0) -> dict[str, Tensor]:
    """A change of every adapted layer, of a rank of its own."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for number, (name, own) in enumerate(low_rank.layers(learner.tensors()).items()):
        rank = 1 + number % 3
        found[name] = low_rank.Factors(
            0.1 * torch.randn(len(own.up), rank, generator=draw),
            0.3 * torch.randn(rank, own.down.shape[1], generator=draw),
        )
    return low_rank.tensors(found)


@contextmanager
def changed(learner: AdaptedModel, residual: Tensors) -> Iterator[None]:
    """The weights themselves changed."""
    modules = dict(learner.backbone.model.named_modules())
    kept = {}
    for name, change in low_rank.layers(residual).items():
        base = modules[name].get_base_layer()
        product = change.product().T if isinstance(base, Conv1D) else change.product()
        kept[base] = base.weight.data.clone()
        base.weight.data += product
    try:
        yield
    finally:
        for base, weight in kept.items():
            base.weight.data = weight


def logits(learner: AdaptedModel) -> Tensor:
    with torch.no_grad():
        return learner.forward(learner.batch(learner.examples("train")[:5]))


def test_it_is_as_if_the_weights_were_changed(backbone: Backbone) -> None:
    learner = client(backbone, "c", rows(0, 12))
    start, residual = moved(learner, 1), drawn(learner)
    learner.load(start)
    plain = logits(learner)
    with changed(learner, residual):
        wanted = logits(learner)
        learner.fit()
        trained = learner.tensors()
    learner.load({**start, **add_prefix(RESIDUAL, residual)})
    torch.testing.assert_close(logits(learner), wanted, atol=1e-5, rtol=0)
    assert (wanted - plain).abs().max() > 0.01
    learner.fit()
    for name, tensor in learner.tensors().items():
        torch.testing.assert_close(tensor, trained[name], atol=1e-5, rtol=0)
    learner.load(start)  # without one, the base is as it was
    assert torch.equal(logits(learner), plain)


@pytest.mark.parametrize("recomputed", [False, True])
def test_cohorts_train_over_it(
    request: pytest.FixtureRequest, recomputed: bool, tiny_llama: str
) -> None:
    settings = BaseModelSettings(
        str(tiny_llama), bf16=False, device="cpu", gradient_checkpointing=recomputed
    )
    backbone = load(settings)
    learners = [client(backbone, f"c{n}", rows(n, 12)) for n in range(3)]
    residuals = [drawn(learners[0], seed) for seed in (0, 0, 1)]  # two of a kind, and another
    for learner, residual in zip(learners, residuals, strict=True):
        learner.set_residual(residual)
        own = learner.load
        # What `compare` loads has no residual of its own.
        learner.load = lambda t, own=own, r=residual: own({**add_prefix(RESIDUAL, r), **t})  # type: ignore[method-assign]
    compare(learners)


def test_training_in_a_cohort_leaves_it(backbone: Backbone) -> None:
    learner = client(backbone, "c", rows(0, 12))
    residual = drawn(learner)
    learner.together = lambda member: train.train([member])[0]
    learner.load({**learner.tensors(), **add_prefix(RESIDUAL, residual)})
    learner.fit()
    assert learner.residual.keys() == residual.keys()


def test_merged_is_their_sum(backbone: Backbone) -> None:
    learner = client(backbone, "c", rows(0, 12))
    own, residual = moved(learner, 1), drawn(learner)
    whole, rank = merged(own, learner.scaling, residual)
    assert rank == 4 + max(one.rank for one in low_rank.layers(residual).values())
    for name, one in low_rank.layers(whole).items():
        parts = low_rank.layers(own)[name], low_rank.layers(residual)[name]
        wanted = learner.scaling * parts[0].product() + parts[1].product()
        torch.testing.assert_close(one.product(), wanted, atol=1e-6, rtol=1e-5)
        assert one.rank == rank
