"""Attention weights at the labels, against those that transformers' own models return."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from clients import SETTINGS
from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.randomness import RoundContext

TOP = Lora(r=2, layers_to_transform=(1,))  # the layer below it is cached


def rows(kind: str = "tokens") -> list[Example]:
    """Five rows of unequal length, whose last two tokens are an answer."""
    draw, found = torch.Generator().manual_seed(1), []
    for number in range(5):
        ids = tuple(torch.randint(3, 290, (5 + number,), generator=draw).tolist())
        ignored = (IGNORED,) * len(ids)
        if kind == "label_words":
            found.append(Example(ids, ignored, ((0,), (1,)), number % 2))
        elif kind == "tags":
            tags = tuple(place % 2 for place in range(len(ids)))
            found.append(Example(ids, ignored, tags=tags, classes=("a", "b")))
        else:
            labels = ignored[:-2] + ids[-2:]
            found.append(Example(ids, labels, prompt=len(ids) - 2, answer="x"))
    return found


def learner_of(
    folder: Path, adapter: Adapter = TOP, kind: str = "tokens", **settings: Any
) -> AdaptedModel:
    model = BaseModelSettings(str(folder), bf16=False, **settings)
    backbone = load(model, classes=0 if kind == "tokens" else 2, example_kind=kind)
    name, splits = backbone.attach(adapter, seed=0), {"train": rows(kind)}
    training = replace(SETTINGS, learning_rate=0.02)
    return AdaptedModel(backbone, name, splits, training, Sft(), RoundContext(0, 1, "a"), 1, {})


def compare(learner: AdaptedModel, found: torch.Tensor, expected: list[torch.Tensor]) -> None:
    """expected: (layers, labels, heads, tokens) of each row without padding."""
    batch = learner.batch(learner.examples("train"))
    assert found.shape == (2, len(batch.at), 4, batch.ids.shape[1])
    first = 0
    for row in expected:
        part = found[:, first : first + row.shape[1]]
        torch.testing.assert_close(part[..., : row.shape[3]], row, atol=1e-5, rtol=1e-5)
        assert not part[..., row.shape[3] :].any()
        first += row.shape[1]
    assert first == found.shape[1]


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_gpt2"])
@pytest.mark.parametrize("recompute", [False, True])
def test_those_of_a_language_model(
    name: str, recompute: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    learner = learner_of(folder, gradient_checkpointing=recompute)
    batch = learner.batch(learner.examples("train"))
    before = learner.forward(batch)
    base = learner.attentions(batch, base=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    expected = []
    for example in rows():
        with torch.no_grad():
            output = model(input_ids=torch.tensor([example.ids]), output_attentions=True)
        weights = torch.stack(output.attentions)[:, 0]  # (layers, heads, T, T)
        expected.append(weights.transpose(1, 2)[:, [len(example) - 3, len(example) - 2]])
    compare(learner, base, expected)
    assert not base.requires_grad
    assert torch.equal(learner.forward(batch), before)


def test_gradients_reach_the_adapter(tiny_llama: Path) -> None:
    learner = learner_of(tiny_llama, Lora(r=2))
    learner.attentions(learner.batch(learner.examples("train"))).square().sum().backward()
    grads = {n: p.grad for n, p in learner.parameters().items() if "lora_B" in n and "q_proj" in n}
    assert len(grads) == 2 and all(grad is not None and grad.any() for grad in grads.values())


@pytest.mark.parametrize("kind", ["label_words", "tags"])
def test_those_of_an_encoder(kind: str, tiny_bert: Path) -> None:
    learner = learner_of(tiny_bert, Lora(r=2), kind)
    found = learner.attentions(learner.batch(learner.examples("train")), base=True)
    model = AutoModel.from_pretrained(
        tiny_bert, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    expected = []
    for example in rows(kind):
        with torch.no_grad():
            output = model(torch.tensor([example.ids]), output_attentions=True)
        weights = torch.stack(output.attentions)[:, 0].transpose(1, 2)
        expected.append(weights[:, :1] if kind == "label_words" else weights)
    compare(learner, found, expected)


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_bart"])
def test_those_of_a_decoder(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    learner = learner_of(folder, Lora(r=2))
    found = learner.attentions(learner.batch(learner.examples("train")), base=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for place, example in enumerate(rows()):
        text, answer = example.ids[: example.prompt], example.ids[example.prompt :]
        inputs = torch.tensor([(learner.backbone.head.start, *answer[:-1])])
        with torch.no_grad():
            output = model(torch.tensor([text]), decoder_input_ids=inputs, output_attentions=True)
        weights = torch.stack(output.decoder_attentions)[:, 0].transpose(1, 2)
        own = found[:, 2 * place : 2 * place + 2, :, : weights.shape[3]]
        torch.testing.assert_close(own, weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [PromptTuning(3), PrefixTuning(3)])
def test_virtual_tokens_are_left_out(adapter: Adapter, tiny_llama: Path) -> None:
    learner = learner_of(tiny_llama, adapter)
    batch = learner.batch(learner.examples("train"))
    found, base = learner.attentions(batch), learner.attentions(batch, base=True)
    assert found.shape == base.shape
    sums = found.detach().sum(dim=3)
    assert float(sums.min()) > 0 and float(sums.max()) < 1
    torch.testing.assert_close(base.sum(dim=3), torch.ones_like(sums))


def test_layers_that_are_computed_again_have_no_weights_in_training(tiny_llama: Path) -> None:
    learner = learner_of(tiny_llama, gradient_checkpointing=True)
    batch = learner.batch(learner.examples("train"))
    with pytest.raises(UserError, match="gradient_checkpointing: false"):
        learner.attentions(batch)
    with torch.no_grad():
        learner.attentions(batch)
