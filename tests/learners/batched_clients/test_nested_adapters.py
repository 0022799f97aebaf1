"""Several adapters in one layer: clients that train together have the function that PEFT saves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.data.example import IGNORED, Example
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import adapted_layers, train
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.training.batches import join
from hanse.tensors.low_rank import B

SIZE = 0.3  # of the factors: far from their start, where most of them do nothing
# Linear layers that every kind below is put into: two in attention, two in the feed-forward part.
SHARED = {
    "tiny_llama": r".*\.(v_proj|o_proj|up_proj|down_proj)",
    "tiny_gpt2": r".*\.(c_attn|c_proj|c_fc)",
    "tiny_bert": r".*\.layer\.\d+\.(attention\.self\.value|attention\.output\.dense|output\.dense)",
}
INNER = {"tiny_llama": r".*\.down_proj", "tiny_gpt2": r".*mlp\.c_proj", "tiny_bert": "nowhere"}
KINDS: dict[str, Callable[[str, int], Adapter]] = {
    "lora": lambda name, r: Lora(r=r, lora_alpha=7, target_modules=SHARED[name]),
    "ia3": lambda name, _: IA3(SHARED[name], INNER[name]),
    "houlsby": lambda name, _: Houlsby(4.0, target_modules=SHARED[name]),
    "pfeiffer": lambda name, _: Pfeiffer(4.0, target_modules=SHARED[name]),
}
MIXTURES = [
    *permutations(("lora", "ia3")),
    *permutations(("lora", "houlsby")),
    *permutations(("ia3", "pfeiffer")),
    *permutations(("lora", "ia3", "houlsby")),
]

ALONE: dict[str, Adapter] = {
    "lora": Lora(r=3),
    "rslora": Lora(r=3, use_rslora=True),
    "ia3": IA3(),
    "houlsby": Houlsby(4.0),
    "pfeiffer": Pfeiffer(4.0),
    "lora_xs": LoraXS(r=4, lora_alpha=8),
    "prompt_tuning": PromptTuning(3),
    "p_tuning": PTuning(3),
    "prefix_tuning": PrefixTuning(3),
}


def _clients(backbone: Backbone, adapters: list[Adapter]) -> list[AdaptedModel]:
    """Clients whose tensors are large, each with an adapter of its own in the model."""
    found = []
    for number, adapter in enumerate(adapters):
        examples = rows(number, 6)
        own: dict[str, Any] = {}
        if not backbone.head.generates_text:
            ids = [example.ids for example in examples]
            examples = [Example(i, (IGNORED,) * len(i), ((0,), (1,), (2,)), i[0] % 3) for i in ids]
            own = {"objective": Classify()}
        learner = client(backbone, f"c{number}", examples, adapter, **own)
        draw = torch.Generator().manual_seed(number)
        for parameter in learner.parameters().values():
            parameter.data.add_(SIZE * torch.randn(parameter.shape, generator=draw))
        found.append(learner)
    return found


@contextmanager
def _stacked(learners: list[AdaptedModel]) -> Iterator[None]:
    """The clients' adapters at work in one pass, as a cohort puts them to work."""
    backbone, first = learners[0].backbone, learners[0]
    starts = [own.tensors() for own in learners]
    pieces = adapted_layers.find(backbone.model, first.attached, starts)
    assert pieces is not None
    scalings = [learner.attached.layer_scalings for learner in learners]
    stack = StackedAdapters(pieces, starts, starts[0], scalings, torch.float32, backbone.device)
    with backbone.without_adapter(), stack.applied(len(learners)):
        yield


def _together(learners: list[AdaptedModel]) -> list[Tensor]:
    """Each client's logits, all from one forward pass."""
    batches = [own.batch(own.examples("train")) for own in learners]
    whole = join(batches)
    with torch.no_grad(), _stacked(learners):
        found = learners[0].backbone.logits(whole.ids, whole.at, whole.lengths)
    return list(found.split(whole.counts))


def _alone(learner: AdaptedModel) -> Tensor:
    """A client's logits through PEFT's own layers."""
    with torch.no_grad():
        return learner.forward(learner.batch(learner.examples("train")))


def _backbone(request: pytest.FixtureRequest, name: str) -> Backbone:
    classes = 3 if name == "tiny_bert" else 0
    path = str(request.getfixturevalue(name))
    return load(BaseModelSettings(path, bf16=False, device="cpu"), classes=classes)


@pytest.mark.parametrize("kinds", MIXTURES, ids="+".join)
@pytest.mark.parametrize("name", SHARED)
def test_one_around_the_other_as_peft_nests_them(
    name: str, kinds: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    backbone = _backbone(request, name)
    mixtures = [Mixed.of([KINDS[kind](name, r) for kind in kinds]) for r in (3, 2, 5)]
    learners = _clients(backbone, [*mixtures, mixtures[0]])
    bare = _alone(replace(learners[0], base_only=True))
    for learner, found in zip(learners, _together(learners), strict=True):
        alone = _alone(learner)
        torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)
    assert (_alone(learners[0]) - bare).abs().max() > 0.1


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("name", SHARED)
def test_one_kind_as_in_training_alone(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Alone in training mode, where dropout that belongs to an adapter would be at work."""
    if (name, kind) == ("tiny_bert", "prefix_tuning"):
        pytest.skip("encoders with prefixes train one after another")
    backbone = _backbone(request, name)
    learners = _clients(backbone, [ALONE[kind]] * 3)
    for learner, found in zip(learners, _together(learners), strict=True):
        with backbone.with_dropout(learner.adapter):
            alone = _alone(learner)
        torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)


def test_an_adapted_output_layer_sees_labelled_places_only(
    request: pytest.FixtureRequest,
) -> None:
    """Whose they are, nobody knows there; so such clients train one after another."""
    backbone = _backbone(request, "tiny_llama")
    learners = _clients(backbone, [Lora(r=2, target_modules=("q_proj", "lm_head"))])
    assert not learners[0].member().joins


def test_loras_dropout_is_at_work_beside_another_kind(request: pytest.FixtureRequest) -> None:
    """The settings that PEFT's model shows are those of the first kind, which has no dropout."""
    backbone = _backbone(request, "tiny_llama")
    shares = (0.0, 0.5)
    mixtures = [
        Mixed.of([Houlsby(4.0), Lora(r=3, target_modules=("v_proj",), lora_dropout=share)])
        for share in shares
    ]
    learners = _clients(backbone, mixtures)
    for learner, share in zip(learners, shares, strict=True):
        assert learner.attached.dropout == share
        assert (learner.rank, learner.scaling) == (3, 16 / 3)
    start, ended = learners[0].tensors(), []
    for learner in learners:
        job = replace(learner.job(), learner=learners[0])
        member = replace(learner.member(job), tensors=start)
        train.train([member])
        ended.append(member.tensors)
    assert not torch.allclose(*(own[next(iter(own))] for own in ended), atol=1e-4)


def test_a_residual_is_beside_lora_where_lora_is_around_another_kind(
    request: pytest.FixtureRequest,
) -> None:
    """The same factors as a residual and as the adapter give the same, whatever is within."""
    backbone = _backbone(request, "tiny_llama")
    mixture = Mixed.of([KINDS[kind]("tiny_llama", 3) for kind in ("ia3", "houlsby", "lora")])
    learner, _ = _clients(backbone, [mixture] * 2)
    wanted, start = _alone(learner), learner.tensors()
    factors = {name: tensor for name, tensor in start.items() if ".lora_" in name}
    ups = {name for name in factors if name.endswith(B)}
    learner.load({n: t * 0 if n in ups else t for n, t in start.items()})
    learner.set_residual({n: t * learner.scaling if n in ups else t for n, t in factors.items()})
    torch.testing.assert_close(_alone(learner), wanted, atol=1e-3, rtol=1e-3)
