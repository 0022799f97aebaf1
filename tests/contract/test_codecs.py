"""Every codec of federation/compression through one test, with its default settings."""

import inspect
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from autoencoders import random_code, saved
from hanse import registry
from hanse.errors import UserError
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, add, all_finite, fits, layout, scale
from hanse.tensors.serialization import MessageError

FOLDER = "federation/compression"
CONTEXT = RoundContext(0, 1, "a", rounds=3)
PAYLOADS = {"change", "factors", "logits", "scalars", "model"}


@cache
def fitted() -> dict[str, Any]:
    """The settings of a learned codec: the file of a toy."""
    folder = Path(tempfile.mkdtemp())
    return {"trained": saved(folder, random_code(block=128, code=2))}


# Settings of codecs that cannot do with their defaults.
SETTINGS: Mapping[str, Callable[[], dict[str, Any]]] = {"cg_fedllm": fitted}
every_codec = pytest.mark.parametrize("name", registry.names(FOLDER))


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """Tensors as an adapter has them: factors, a bias, a scalar."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"layer.A": (4, 32), "layer.B": (32, 4), "bias": (32,), "scale": ()}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def build(name: str) -> Transform:
    codec = registry.build(FOLDER, {name: SETTINGS.get(name, dict)()})
    assert isinstance(codec, Transform)
    return codec


def state_of(codec: Transform, update: Tensors) -> Tensors:
    return {**codec.init(layout(update)), **codec.weights()}


def encoded(codec: Transform, update: Tensors) -> Tensors:
    state = state_of(codec, update)
    return codec.encode(Update(update), {}, state, CONTEXT).tensors


def decoded(codec: Transform, update: Tensors, message: Tensors) -> Tensors:
    state = {**codec.broadcast(codec.init(layout(update))), **codec.weights()}
    return codec.decode(Update(message), state, CONTEXT).tensors


@every_codec
def test_it_says_what_it_is(name: str) -> None:
    codec = type(build(name))
    assert (inspect.getdoc(codec) or "").splitlines()[0].endswith(".")
    assert "linear" in vars(codec) and {*codec.payloads} <= PAYLOADS


@every_codec
def test_a_decoded_update_has_the_form_of_the_update(name: str) -> None:
    codec, update = build(name), tensors(0)
    result = decoded(codec, update, encoded(codec, update))
    assert layout(result).keys() == update.keys()
    assert all(fits(result[key], form) for key, form in layout(update).items())


@every_codec
def test_the_layout_is_that_of_an_encoded_update(name: str) -> None:
    codec, update = build(name), tensors(0)
    expected = codec.layout(layout(update), state_of(codec, update))
    message = encoded(codec, update)
    assert message.keys() == expected.keys()
    assert all(fits(message[key], form) for key, form in expected.items())


@every_codec
def test_the_update_itself_is_not_changed(name: str) -> None:
    update = tensors(0)
    encoded(build(name), update)
    assert all(torch.equal(tensor, tensors(0)[key]) for key, tensor in update.items())


@every_codec
def test_linear_is_declared_truthfully(name: str) -> None:
    """Linear: weighted sums of messages decode to those sums of the decoded updates."""
    codec, updates = build(name), [tensors(seed) for seed in range(3)]
    messages = [encoded(codec, update) for update in updates]
    exact = _weighted(
        [decoded(codec, update, m) for update, m in zip(updates, messages, strict=True)]
    )
    try:
        result = decoded(codec, updates[0], _weighted(messages))
    except (MessageError, RuntimeError):  # a sum of messages is none
        assert not codec.linear
        return
    same = all(torch.allclose(result[k], exact[k], rtol=1e-5, atol=1e-5) for k in exact)
    assert same == codec.linear


@every_codec
def test_lossless_is_declared_truthfully(name: str) -> None:
    codec, update = build(name), tensors(0)
    result = decoded(codec, update, encoded(codec, update))
    assert not codec.lossless or all(torch.equal(result[key], update[key]) for key in update)


@every_codec
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_stay_so(name: str, value: float) -> None:
    codec, update = build(name), {k: torch.full_like(t, value) for k, t in tensors(0).items()}
    try:
        message = encoded(codec, update)
    except UserError:  # the client says why it sends nothing
        return
    if all_finite(message):
        assert not any(map(all_finite, _each(decoded(codec, update, message))))


@every_codec
def test_with_error_feedback_nothing_is_lost(name: str) -> None:
    codec = build(name)
    weights = {0: codec.weights()}
    pipeline = Pipeline("upload", (codec,), error_feedback=True, weights=weights)
    states = pipeline.init(layout(tensors(0)))
    memory: dict[str, dict[str, torch.Tensor]] = {}
    sent = []
    for seed in range(5):
        update = pipeline.encode(Update(tensors(seed)), memory, states, CONTEXT)
        sent.append(pipeline.decode(update, states, CONTEXT).tensors)
    total, received = _sum([tensors(seed) for seed in range(5)]), _sum(sent)
    lost = memory["upload.feedback"]
    for key, tensor in total.items():
        assert torch.allclose(received[key] + lost[key], tensor, atol=1e-5)


def _weighted(groups: list[Tensors]) -> Tensors:
    return _sum([scale(group, w) for group, w in zip(groups, (1.0, 2.5, 0.25), strict=True)])


def _each(group: Tensors) -> list[Tensors]:
    return [{key: tensor} for key, tensor in group.items()]


def _sum(groups: list[Tensors]) -> Tensors:
    total = groups[0]
    for group in groups[1:]:
        total = add(total, group)
    return total
