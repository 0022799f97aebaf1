"""Layers that are computed again in the backward pass: the same gradients, far less memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

from clients import client, rows
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.gradient_checkpointing import recompute
from hanse.learners.models.settings import BaseModelSettings
from learners.batched_clients.test_train import alone, compare, moved, together

LORA = Lora(r=4, target_modules="all-linear")


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def model(folder: str, on: bool) -> Backbone:
    return load(BaseModelSettings(folder, bf16=False, device="cpu", gradient_checkpointing=on))


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """The bytes of each tensor that is kept for the backward pass, but for the model's own."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def gradients(learner: AdaptedModel) -> tuple[dict[str, Tensor], int]:
    """Of a batch, and the bytes that were kept for them."""
    batch = learner.batch(learner.examples("train"))
    live = dict(learner.parameters())
    with (
        torch.random.fork_rng(),
        learner.backbone.with_dropout(learner.adapter),
        kept_bytes() as kept,
    ):
        torch.manual_seed(0)
        loss = learner.objective.loss(learner, batch)
        found = torch.autograd.grad(loss, list(live.values()))
    return dict(zip(live, found, strict=True)), sum(kept)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_and_memory_is_less(folder: str, dropout: float) -> None:
    lora = replace(LORA, lora_dropout=dropout)
    plain, spare = (client(model(folder, on), "a", rows(0, 8), lora) for on in (False, True))
    start = moved(plain, 0)
    plain.load(start)
    spare.load(start)
    (wanted, much), (found, little) = gradients(plain), gradients(spare)
    for name, gradient in found.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=0)
    # The first layer's input needs no gradient, but what enters the second is kept.
    config = plain.backbone.model.config
    entering = len(plain.examples("train")) * config.hidden_size * 4
    assert entering < little < much / 2


def test_the_bases_own_dropout_stays_off(tiny_llama: Path, tmp_path: Path) -> None:
    """OPT's layers drop by themselves whenever they are in training mode."""
    config = OPTConfig(
        vocab_size=600, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=32, max_position_embeddings=64, dropout=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    OPTForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    learners = [client(model(str(tmp_path), on), "a", rows(0, 8)) for on in (False, True)]
    wanted, found = (gradients(learner)[0] for learner in learners)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layers", [None, (1,)])
def test_a_round_is_the_same(folder: str, layers: tuple[int, ...] | None) -> None:
    """Also where what leaves the first layer is kept, which is then not computed again."""
    lora = replace(LORA, layers_to_transform=layers)
    plain, spare = (client(model(folder, on), "a", rows(0, 20), lora) for on in (False, True))
    start = moved(plain, 0)
    wanted, found = (alone([one], [start])[0][0] for one in (plain, spare))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=0)


def test_clients_train_together_as_alone(folder: str) -> None:
    base = model(folder, True)
    compare([client(base, f"c{n}", rows(n, 12), LORA, optim="sgd") for n in range(3)])


def test_clients_that_drop_are_together_as_without(folder: str) -> None:
    """A layer that is computed again drops the same inputs."""
    lora, found = replace(LORA, lora_dropout=0.4), []
    for on in (False, True):
        base = model(folder, on)
        learners = [client(base, f"c{n}", rows(n, 12), lora) for n in range(3)]
        starts = [moved(learner, index) for index, learner in enumerate(learners)]
        with kept_bytes() as kept:
            found.append((together(learners, starts)[0], len(kept)))
    (plain, many), (spare, few) = found
    assert few < many / 2
    for one, other in zip(plain, spare, strict=True):
        for name in one:
            torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=0)


def test_generation_goes_as_before(tiny_llama: Path) -> None:
    said = []
    for on in (False, True):
        asked = [replace(example, prompt=3) for example in rows(0, 4)]
        said.append(client(model(str(tiny_llama), on), "a", asked).generate(asked, 8))
    assert said[0] == said[1]


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(UserError, match="strange has no layers that can be computed again"):
        recompute(torch.nn.Linear(2, 2), "strange")


@pytest.mark.parametrize("prompt", [PromptTuning(3), PTuning(3)])
def test_vectors_before_a_text_get_the_same_gradients(folder: str, prompt: Adapter) -> None:
    plain, spare = (client(model(folder, on), "a", rows(0, 8), prompt) for on in (False, True))
    wanted, found = gradients(plain)[0], gradients(spare)[0]
    for name, gradient in found.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=0)
