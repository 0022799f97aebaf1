"""Parts of an adapter: leading blocks of the whole, with its outputs, above cached layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.errors import UserError
from hanse.federation.interfaces.trained_tensors import DEPTH, WIDTH
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.train import train
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.parts_of_adapters import KEPT
from hanse.learners.load import load
from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.settings import BaseModelSettings
from hanse.tensors import layouts
from hanse.tensors.named import layout, shapes
from tiny_models import save_llama

LAYERS, INNER = 3, 6
KINDS = [
    Houlsby(reduction_factor=32 / INNER),
    Pfeiffer(reduction_factor=32 / INNER, non_linearity="sigmoid"),
    Lora(r=INNER, lora_alpha=9),
    Lora(r=INNER, use_rslora=True, layers_to_transform=(0, 1, 2)),
]
EXAMPLES = rows(3, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("three-layers")
    save_llama(place, layers=LAYERS)
    return place


def learner(folder: Path, kind: Adapter, cache: bool = True) -> AdaptedModel:
    """A client with the whole adapter."""
    settings = BaseModelSettings(str(folder), bf16=False, activation_cache=cache)
    return client(load(settings), "c", EXAMPLES, kind)


def part(whole: AdaptedModel, depth: int, width: int, name: str = "c") -> AdaptedModel:
    """A client with a part of the adapter."""
    found = replace(whole, context=replace(whole.context, client=name))
    found.configure({DEPTH: depth, WIDTH: width})
    return found


def logits(own: AdaptedModel) -> Tensor:
    with torch.no_grad():
        return own.forward(own.batch(EXAMPLES[:4]))


@contextmanager
def runs(backbone: Backbone) -> Iterator[list[int]]:
    """How often each layer is run."""
    layers, counts = decoder_layers(backbone.model)[1], [0] * LAYERS
    inner = [next(m for m in layer.modules() if "Norm" in type(m).__name__) for layer in layers]

    def counting(place: int) -> object:
        def count(*_: object) -> None:
            counts[place] += 1

        return count

    handles = [norm.register_forward_hook(counting(n)) for n, norm in enumerate(inner)]  # type: ignore[arg-type]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_part_is_a_leading_block_with_the_outputs_of_the_whole(
    folder: Path, kind: Adapter
) -> None:
    whole = learner(folder, kind)
    for depth, width in ((1, 2), (2, 2), (2, 5), (9, 99)):
        own, initial = part(whole, depth, width), whole.initial()
        form = layout(own.parameters())
        inner = {min(form.shape) for form in form.values() if form.dim() == 2}
        assert inner == {min(width, INNER)}
        numbers = {int(name.split("layers.")[1][0]) for name in form}
        assert numbers == {*range(LAYERS)[-depth:]}
        assert own.initial().keys() == form.keys()
        cut = layouts.cut(initial, form)
        assert all(torch.equal(own.initial()[name], tensor) for name, tensor in cut.items())
        own.load(cut)
        own.fit()
        trained, outputs = own.tensors(), logits(own)
        # Growth: the part within the next larger one, and within the whole, has the same outputs.
        larger = part(whole, depth + 1, width + 1)
        for other in (larger, whole):
            start = layouts.cut(initial, layout(other.parameters()))
            other.load(layouts.over(trained, start))
            assert (logits(other) - outputs).norm() < 1e-6 * outputs.norm()
        whole.load(initial)
        assert not torch.allclose(logits(whole), outputs, atol=1e-4)  # it has trained


@pytest.mark.parametrize("kind", KINDS[:3], ids=lambda kind: type(kind).__name__)
def test_cached_activations_equal_recomputed_ones_at_all_depths(
    folder: Path, kind: Adapter
) -> None:
    ends = []
    for cache in (True, False):
        whole, trained = learner(folder, kind, cache), []
        for depth, width in ((1, 2), (1, 4), (2, 4), (3, 4)):
            own = part(whole, depth, width)
            start = layouts.cut(whole.initial(), layout(own.parameters()))
            own.load(layouts.over(trained[-1], start) if trained else start)
            own.fit()
            trained.append(own.tensors())
        ends.append(trained)
    for cached, computed in zip(*ends, strict=True):
        for name, tensor in computed.items():
            torch.testing.assert_close(cached[name], tensor, atol=1e-6, rtol=1e-5)


def test_cached_activations_are_used_until_the_depth_changes(folder: Path) -> None:
    whole = learner(folder, KINDS[0])
    for depth, width in ((1, 2), (1, 4), (2, 4), (2, 6), (1, 6)):
        new, own = (depth, width) in ((1, 2), (2, 4)), part(whole, depth, width)
        with runs(whole.backbone) as counts:
            logits(own)
            below = counts[: LAYERS - depth]
            assert all(below) if new else not any(below), (depth, width)
            assert all(counts[LAYERS - depth :])


def test_few_parts_stay_in_memory_and_go_with_the_whole(folder: Path) -> None:
    whole = learner(folder, KINDS[0])
    first = part(whole, 1, 1)
    for width in range(2, KEPT + 1):
        part(whole, 1, width)
    again = part(part(whole, 1, 1), 2, 5)  # of the whole, and not of the part
    assert first.adapter in whole.backbone.adapters  # it was used again
    assert len(whole.attached.parts) == KEPT
    assert len(whole.backbone.adapters) == 2 + KEPT  # and none at all
    assert shapes(again.parameters()) == shapes(part(whole, 2, 5).parameters())
    whole.backbone.detach(whole.adapter)
    assert len(whole.backbone.adapters) == 1


@pytest.mark.parametrize("kind", KINDS[1:3], ids=lambda kind: type(kind).__name__)
def test_parts_of_unequal_sizes_train_together_as_alone(folder: Path, kind: Adapter) -> None:
    whole = learner(folder, kind)
    own = [part(whole, *size, f"c{n}") for n, size in enumerate(((1, 2), (1, 4), (2, 2), (1, 2)))]
    alone = []
    for one in own:
        one.load(one.initial())
        one.fit()
        alone.append(one.tensors())
        one.load(one.initial())
    members = [one.member() for one in own]
    assert all(member.joins for member in members)
    train(members)
    for member, wanted in zip(members, alone, strict=True):
        for name, tensor in wanted.items():
            torch.testing.assert_close(member.tensors[name], tensor, atol=5e-5, rtol=1e-5)


def test_numbers_that_are_no_sizes_are_refused(folder: Path) -> None:
    whole = learner(folder, KINDS[0])
    whole.configure({"other": 3.0})
    for value in (0.0, -1.0, 1.5, float("nan"), float("inf"), 2.0**40):
        with pytest.raises(UserError, match=r"asks for .* as adapter_depth, and a whole number"):
            part(whole, value, 2)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="asks for 0 as adapter_width"):
        whole.configure({DEPTH: 1.0})
    with pytest.raises(UserError, match=r"cannot grow, .* houlsby, pfeiffer or lora"):
        part(learner(folder, IA3()), 1, 2)


def test_single_matrices_of_other_ranks_have_no_parts() -> None:
    assert Lora().resizable and Houlsby().resizable
    assert not Lora(rank_pattern={"q_proj": 2}).resizable
    assert not Lora(target_parameters=("mlp.experts.gate_up_proj",)).resizable
    with pytest.raises(TypeError, match="IA3 has no parts"):
        IA3().resized(None, 1, 1)
