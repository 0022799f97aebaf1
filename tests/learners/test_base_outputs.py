"""Logits without the adapter, hidden states, and answers drawn by the model, in training too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.batched_clients.client_view import ClientView
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.attached_adapter import without_gradients
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import add_prefix

TOP = Lora(r=4, layers_to_transform=(1,))  # the layer below it is cached
ADAPTERS: dict[str, Adapter] = {
    "lora": Lora(r=4),
    "top layer": TOP,
    "ia3": IA3(),
    "houlsby": Houlsby(reduction_factor=4),
    "full": Full(),
    "prompt_tuning": PromptTuning(3),
    "prefix_tuning": PrefixTuning(3),
    "p_tuning": PTuning(3),
    "mixed": Mixed.of([Lora(r=2), Houlsby(reduction_factor=4)]),
}


# Prefixes are in the cache, which layers that are computed again would fill twice.
RECOMPUTED = [(kind, on) for kind in ADAPTERS for on in (False, True)[: 1 + ("prefix" not in kind)]]


def _examples() -> list[Example]:
    """Six rows of unequal length; the last three tokens are an answer."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(6):
        ids = tuple(torch.randint(2, 300, (5 + number,), generator=generator).tolist())
        end = len(ids) - 3
        rows.append(Example(ids, (IGNORED,) * end + ids[end:], prompt=end, answer="x"))
    return rows


def _learner(folder: Path, adapter: Adapter, **settings: Any) -> AdaptedModel:
    """A learner whose adapter is not zero, so that it counts."""
    backbone = load(BaseModelSettings(str(folder), bf16=False, **settings))
    name = backbone.attach(adapter, seed=0)
    draw = torch.Generator().manual_seed(5)
    for parameter in backbone.parameters(name).values():
        parameter.data.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=draw))
    splits, context = {"train": _examples()}, RoundContext(0, 1, "a")
    return AdaptedModel(backbone, name, splits, TrainingSettings(), Sft(), context, 1, {})


def _base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _labelled(outputs: Tensor, example: Example) -> Tensor:
    """The outputs (T, width) at the positions whose next token is labelled."""
    return outputs[[at - 1 for at in range(1, len(example)) if example.labels[at] != IGNORED]]


def _graded(learner: AdaptedModel, between: bool) -> dict[str, Tensor | None]:
    """The gradients of the loss; between: the base's logits are asked for before and in the middle.

    Layers that are computed again in the backward pass must still find the adapter there.
    """
    batch = learner.batch(learner.examples("train"))
    if between:
        learner.base_logits(batch)
    loss = learner.forward(batch).log_softmax(1).gather(1, batch.targets[:, None]).mean()
    if between:
        learner.base_logits(batch)
        learner.hidden_states(batch, base=True)
    loss.backward()
    grads = {name: p.grad for name, p in learner.parameters().items()}
    for parameter in learner.parameters().values():
        parameter.grad = None
    return grads


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize(("kind", "recompute"), RECOMPUTED)
def test_the_base_alone_is_the_model_on_disk_and_leaves_the_adapter_as_it_was(
    folder: Path, kind: str, recompute: bool
) -> None:
    learner = _learner(folder, ADAPTERS[kind], gradient_checkpointing=recompute)
    batch, model = learner.batch(learner.examples("train")), _base(folder)
    flags = [p.requires_grad for p in learner.backbone.model.parameters()]
    before = learner.forward(batch)
    base = learner.base_logits(batch)
    with torch.no_grad():
        expected = [
            _labelled(model(input_ids=torch.tensor([e.ids])).logits[0], e) for e in _examples()
        ]
    torch.testing.assert_close(base, torch.cat(expected), atol=1e-5, rtol=1e-5)
    assert not base.requires_grad
    assert not torch.allclose(base, before, atol=1e-2)
    assert torch.equal(learner.forward(batch), before)
    assert [p.requires_grad for p in learner.backbone.model.parameters()] == flags
    plain, between = _graded(learner, between=False), _graded(learner, between=True)
    assert plain.keys() == between.keys()
    for name, gradient in plain.items():
        other = between[name]
        assert gradient is None if other is None else torch.equal(gradient, other), name


def test_frozen_tensors_stay_frozen_behind_the_base(folder: Path) -> None:
    learner = _learner(folder, Lora(r=4))
    frozen = {n: t for n, t in learner.tensors().items() if "lora_A" in n}
    live = {name: learner.parameters()[name] for name in frozen}
    learner.freeze(frozen)
    with _training(learner), without_gradients(live.values()):
        _graded(learner, between=True)
        assert all(p.grad is None and not p.requires_grad for p in live.values())


def test_the_residual_belongs_to_the_base(folder: Path) -> None:
    learner = _learner(folder, Lora(r=4))
    batch = learner.batch(learner.examples("train"))
    without = learner.base_logits(batch)
    learner.load({**learner.tensors(), **add_prefix(RESIDUAL, learner.tensors())})
    assert not torch.allclose(learner.base_logits(batch), without, atol=1e-2)


@pytest.mark.parametrize(("kind", "recompute"), RECOMPUTED)
def test_hidden_states_are_those_of_transformers_at_the_labels(
    folder: Path, kind: str, recompute: bool
) -> None:
    learner = _learner(folder, ADAPTERS[kind], gradient_checkpointing=recompute)
    batch, model = learner.batch(learner.examples("train")), _base(folder)
    learner.forward(batch)  # fills the cache of frozen layers, whose states are not all kept
    base = learner.hidden_states(batch, base=True)
    with torch.no_grad():
        rows = [
            model(input_ids=torch.tensor([e.ids]), output_hidden_states=True).hidden_states
            for e in _examples()
        ]
    expected = [
        torch.cat([_labelled(row[layer][0], e) for row, e in zip(rows, _examples(), strict=True)])
        for layer in range(3)
    ]
    torch.testing.assert_close(base, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert not base.requires_grad
    adapted = learner.hidden_states(batch)
    assert adapted.shape == (3, len(batch.at), 32)
    head = learner.backbone.model.get_output_embeddings()
    torch.testing.assert_close(head(adapted[-1]), learner.forward(batch), atol=1e-5, rtol=1e-5)
    adapted[-1].sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.parameters().values())


@contextmanager
def _training(learner: AdaptedModel) -> Iterator[None]:
    """Dropout is on within this context, as in training."""
    for module in learner.backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    with learner.backbone.with_dropout(learner.adapter):
        yield


def _answers(examples: list[Example]) -> list[tuple[int, ...]]:
    return [example.ids[example.prompt :] for example in examples]


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning", "prefix_tuning"])
def test_greedy_continuations_are_the_most_likely_tokens(folder: Path, kind: str) -> None:
    learner = _learner(folder, ADAPTERS[kind])
    with _training(learner):
        drawn = learner.continuations(_examples(), 4, 0.0, seed=0)
    assert [learner.text(e.ids[e.prompt :]) for e in drawn] == learner.generate(_examples(), 4)
    end = learner.backbone.tokenizer.eos_token_id
    for example, source in zip(drawn, _examples(), strict=True):
        assert example.ids[: example.prompt] == source.ids[: source.prompt]
        answer = example.ids[example.prompt :]
        assert example.labels == (IGNORED,) * example.prompt + answer
        assert end in answer or len(answer) == 4
        assert end not in answer[:-1]
        logits = learner.forward(learner.batch([example]))
        assert logits.argmax(1).tolist() == list(answer)


def test_drawn_answers_depend_on_the_seed_alone(folder: Path) -> None:
    learner = _learner(folder, Lora(r=4, lora_dropout=0.5))
    first = _answers(learner.continuations(_examples(), 6, 1.0, seed=3))
    state = torch.get_rng_state()
    with _training(learner):
        assert _answers(learner.continuations(_examples(), 6, 1.0, seed=3)) == first
        assert all(module.training for module in learner.attached.dropout_modules)
    assert torch.equal(torch.get_rng_state(), state)
    assert _answers(learner.continuations(_examples(), 6, 1.0, seed=4)) != first


def test_drawn_rows_are_not_cached(folder: Path) -> None:
    learner = _learner(folder, TOP)
    [layers] = [cached for cached in learner.backbone._frozen_layers.values() if cached]
    before = len(layers.activations._held)
    learner.forward(learner.batch(learner.continuations(_examples(), 6, 1.0, seed=3)))
    assert len(layers.activations._held) == before
    learner.forward(learner.batch(_examples()))
    assert len(layers.activations._held) == before + len(_examples())


def test_a_long_prompt_loses_its_beginning(folder: Path) -> None:
    learner = _learner(folder, Lora(r=4))
    ids = tuple(range(2, 258))
    [drawn] = learner.continuations([Example(ids, ids, prompt=255)], 10, 0.0, seed=0)
    assert drawn.ids[: drawn.prompt] == ids[255 - 246 : 255]
    assert drawn.lost


def test_nothing_follows_an_empty_prompt(folder: Path) -> None:
    learner = _learner(folder, Lora(r=4))
    with pytest.raises(UserError, match="no prompt"):
        learner.continuations([Example((3, 4), (IGNORED, 4))], 4, 0.0, seed=0)


def test_clients_that_train_together_say_that_they_have_no_model_of_their_own(
    folder: Path,
) -> None:
    learner = _learner(folder, Lora(r=4))
    batch = learner.batch(_examples())
    view = ClientView(learner, batch, learner.forward(batch))
    for call in (
        lambda: view.base_logits(batch),
        lambda: view.hidden_states(batch),
        lambda: view.attentions(batch),
        lambda: view.continuations(_examples(), 4, 0.0, 0),
    ):
        with pytest.raises(TypeError, match="batchable = False"):
            call()
