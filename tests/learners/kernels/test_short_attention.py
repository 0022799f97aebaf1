"""Attention by plain products is what torch's kernel computes, and is used where it should be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.kernels import short_attention
from hanse.learners.load import load
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of rows that have attended by plain products."""
    lengths: list[int] = []

    def note(name: str) -> None:
        plain = getattr(short_attention, name)

        def noted(query: Tensor, *others: Any) -> Tensor:
            lengths.append(query.shape[2])
            return plain(query, *others)  # type: ignore[no-any-return]

        monkeypatch.setattr(short_attention, name, noted)

    note("causal")
    note("masked")
    return lengths


def model(folder: str, plain: bool) -> Backbone:
    return load(
        BaseModelSettings(folder, device="cpu"), ComputeMode(bf16=False, plain_attention=plain)
    )


@pytest.mark.parametrize("group", [1, 3])
def test_each_token_takes_a_mean_of_what_came_before(group: int) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2 * group, 5, 4, generator=draw)
    key, value = (torch.randn(2, 2, 5, 4, generator=draw) for _ in "kv")
    found = short_attention.causal(query, key, value, 0.3)
    for row in range(2):
        for head in range(2 * group):
            for token in range(5):
                seen = slice(token + 1)
                scores = key[row, head // group, seen] @ query[row, head, token] * 0.3
                wanted = scores.softmax(0) @ value[row, head // group, seen]
                torch.testing.assert_close(found[row, head, token], wanted)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_each_token_takes_a_mean_of_what_it_sees(group: int, padded: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2 * group, 5, 4, generator=draw)
    key, value = (torch.randn(2, 2, 5, 4, generator=draw) for _ in "kv")
    lengths = (5, 3) if padded else (5, 5)
    seen = torch.tensor([[token < length for token in range(5)] for length in lengths])
    mask = seen[:, None, None, :].expand(2, 1, 5, 5) if padded else None
    found = short_attention.masked(query, key, value, 0.3, mask)
    for row in range(2):
        for head in range(2 * group):
            for token in range(5):
                own = slice(lengths[row])
                scores = key[row, head // group, own] @ query[row, head, token] * 0.3
                wanted = scores.softmax(0) @ value[row, head // group, own]
                torch.testing.assert_close(found[row, head, token], wanted)


def test_encoders_attend_so_too(tiny_bert: Path, used: list[int]) -> None:
    """Logits, with padding, and gradients are those of the fused kernel."""
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    lora = Lora(r=2, target_modules=("query", "value"))
    found = []
    for plain in (False, True):
        backbone = load(BaseModelSettings(str(tiny_bert)), ComputeMode(False, plain), classes=3)
        adapter = backbone.attach(lora, 0)
        backbone.activate(adapter)
        live = list(backbone.parameters(adapter).values())
        with torch.no_grad():
            for parameter in live:
                parameter.add_(0.05)
        logits = backbone.logits(ids, torch.tensor([2, 9]), (3, 5))
        weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
        found.append((logits, *torch.autograd.grad((logits * weights).sum(), live)))
        assert set(used) == ({5} if plain else set())
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_logits_and_gradients_are_those_of_the_fused_kernel(folder: str, used: list[int]) -> None:
    """With padding on the right, which a causal model never sees."""
    lora = Lora(r=4, target_modules="all-linear")
    learners = [client(model(folder, plain), "a", rows(0, 8), lora) for plain in (False, True)]
    start = {name: tensor + 0.05 for name, tensor in learners[0].tensors().items()}
    batch = learners[0].batch(learners[0].examples("train"))
    assert len(set(batch.lengths)) > 1
    used.clear()
    found = []
    for learner in learners:
        learner.load(start)
        logits = learner.forward(batch)
        live = list(learner.parameters().values())
        weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
        found.append((logits, *torch.autograd.grad((logits * weights).mean(), live)))
        with torch.no_grad():
            torch.testing.assert_close(learner.forward(batch), logits)
    assert set(used) == {batch.ids.shape[1]}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_long_rows_take_the_fused_kernel(
    folder: str, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_attention, "LONGEST", 10)
    backbone = model(folder, True)
    used.clear()
    with torch.no_grad():
        for tokens in (10, 11):
            backbone.model(input_ids=torch.zeros(1, tokens, dtype=torch.long))
    assert set(used) == {10}


def test_answers_are_the_same(folder: str) -> None:
    """Prompts of unequal length are padded on the left."""
    asked = [replace(example, prompt=len(example)) for example in rows(0, 6)]
    said = [client(model(folder, plain), "a", []).generate(asked, 8) for plain in (False, True)]
    assert said[0] == said[1] and len(set(said[0])) > 1


def test_models_that_choose_for_themselves_are_left_alone(tiny_llama: Path) -> None:
    backbone = model(str(tiny_llama), False)
    backbone.model.set_attn_implementation("eager")
    short_attention.use(backbone.model, plain=True)
    assert backbone.model.config._attn_implementation == "eager"
