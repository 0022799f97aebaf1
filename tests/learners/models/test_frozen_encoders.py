"""Encoders whose first layers are frozen, or all of them: rows pass these once, and as ever."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    RobertaConfig,
)

from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.experiment.loading import load as load_experiment
from hanse.federation import messages
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.lora import Lora
from hanse.learners.batched_clients.train import train
from hanse.learners.caching.frozen_layers import _reads_first
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.inject import attach
from hanse.learners.load import load
from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from hanse.tensors import serialization

CLASSES = ((0,), (1,), (2,))
LORA = Lora(r=4, target_modules=("query", "value"), layers_to_transform=(1,))


def _rows(lengths: range) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(2, 300, (n,), generator=generator).tolist() for n in lengths]
    return [Example(tuple(r), (IGNORED,) * len(r), CLASSES, len(r) // 2 % 3) for r in drawn]


def _learner(folder: Path, adapter: Adapter, cache: bool = True) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False, activation_cache=cache), classes=3)
    name = backbone.attach(adapter, 0)
    training = TrainingSettings(
        learning_rate=0.02, per_device_train_batch_size=4, num_train_epochs=3
    )
    splits = {"train": _rows(range(5, 17))}
    return AdaptedModel(
        backbone, name, splits, training, Classify(), RoundContext(0, 1, "a"), 2, {}
    )


def _graded(learner: AdaptedModel, rows: list[Example]) -> dict[str, Tensor]:
    """The gradients of a batch's loss, and the loss."""
    learner.backbone.activate(learner.adapter).zero_grad()
    loss = learner.objective.loss(learner, learner.batch(rows))
    loss.backward()
    grads = {n: p.grad.clone() for n, p in learner.parameters().items() if p.grad is not None}
    return {**grads, "loss": loss.detach()}


@pytest.mark.parametrize(
    ("adapter", "depth"),
    [
        (LORA, 1),
        (Houlsby(reduction_factor=4, layers_to_transform=(1,)), 1),
        (Full(top_layers=1), 1),
        (Full(freeze_layers=2), 2),
        (Head(), 2),
    ],
)
def test_gradients_are_those_of_the_plain_way(
    tiny_bert: Path, adapter: Adapter, depth: int
) -> None:
    cached, plain = _learner(tiny_bert, adapter), _learner(tiny_bert, adapter, cache=False)
    rows = _rows(range(3, 15))
    for batch in (rows[:4], rows[:4], rows[2:8], [rows[9], rows[0], rows[9]]):
        found, wanted = _graded(cached, batch), _graded(plain, batch)
        assert found.keys() == wanted.keys() != {"loss"}
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)
    prefix = cached.backbone._frozen_layers[depth]
    assert prefix is not None
    assert prefix.first_only == (depth == 2)
    kept = {tensor.shape[0] for tensor in prefix.activations._held.values()}
    assert (kept - {5, 8} == {1}) if depth == 2 else max(kept) == 12  # of the longest


@pytest.mark.parametrize("together", [False, True])
def test_the_encoder_sees_each_row_once_in_all_epochs_and_rounds(
    tiny_bert: Path, together: bool
) -> None:
    learner = _learner(tiny_bert, Head())
    rows = _rows(range(16, 40, 2))  # of widths that are not filled up
    learner.splits = {"train": rows}
    passed: list[Tensor] = []
    for layer in decoder_layers(learner.backbone.model)[1]:
        layer.attention.register_forward_hook(lambda _, __, output: passed.append(output[0]))
    for round in (1, 2):
        learner.context = RoundContext(0, round, "a")
        if together:
            train([learner.member(), learner.member()])
        else:
            learner.fit()
        with torch.no_grad():
            learner.scores(learner.batch(rows))
    assert sum(states.shape[0] for states in passed) == 2 * len(rows)  # two layers


@pytest.mark.parametrize("adapter", [LORA, Head()])
def test_what_is_kept_of_a_row_does_not_depend_on_the_others(
    tiny_bert: Path, adapter: Adapter
) -> None:
    rows = [*_rows(range(5, 40, 3)), *_rows(range(5, 40))]
    found = []
    for batches in ([rows], [[row] for row in rows]):
        learner = _learner(tiny_bert, adapter)
        for batch in batches:
            with torch.no_grad():
                learner.scores(learner.batch(batch))
        found.append(learner.backbone._activations._held)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(states, found[1][key]) for key, states in found[0].items())


def test_only_the_head_travels(
    experiment_file: Path, tiny_llama: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = experiment_file.read_text().replace(str(tiny_llama), str(tiny_bert))
    experiment_file.write_text(text)
    sent: set[str] = set()
    parts = serialization.parts

    def noting(header: Any, numbers: Any, groups: Any) -> list[bytes | memoryview]:
        sent.update(name for tensors in groups.values() for name in tensors)
        return parts(header, numbers, groups)

    monkeypatch.setattr(messages, "parts", noting)
    simulation.run(load_experiment(experiment_file, ["adapter=head", "rounds=1"]))
    assert sent == {
        f"base_model.model.{module}.{part}"
        for module in ("classifier", "bert.pooler.dense")
        for part in ("weight", "bias")
    }


def test_a_head_that_a_model_has_goes_on_as_it_was(tiny_bert: Path, tmp_path: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    model.classifier.bias.data.fill_(0.5)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    learner = _learner(tmp_path, Head())
    start = learner.tensors()
    own = model.state_dict()
    assert len(start) == 4
    for name, tensor in start.items():
        assert torch.equal(tensor, own[name.removeprefix("base_model.model.")])
    learner.fit()
    assert all(not torch.equal(tensor, start[n]) for n, tensor in learner.tensors().items())


SMALL: dict[str, Any] = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 40}
WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, **WIDE, num_hidden_layers=2),
        RobertaConfig(**SMALL, **WIDE, num_hidden_layers=2),
        DistilBertConfig(**SMALL, dim=32, hidden_dim=64, n_layers=2, n_heads=4),
    ],
)
def test_classifiers_look_at_the_first_token(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model = attach(model, Head(), 0, "SEQ_CLS")[0]
    last = decoder_layers(model)[1][-1]
    with torch.no_grad():
        assert _reads_first(model, last, torch.arange(3, 19).view(2, 8))


def test_who_tells_every_token_a_class_looks_at_all() -> None:
    config = BertConfig(**SMALL, **WIDE, num_hidden_layers=2)
    model = attach(BertForTokenClassification(config).eval(), Head(), 0, "TOKEN_CLS")[0]
    last = decoder_layers(model)[1][-1]
    with torch.no_grad():
        assert not _reads_first(model, last, torch.arange(3, 19).view(2, 8))


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2"])
def test_a_language_model_has_no_head_of_classes(
    request: pytest.FixtureRequest, model: str
) -> None:
    backbone = load(BaseModelSettings(str(request.getfixturevalue(model)), bf16=False))
    with pytest.raises(UserError, match=r"trains a classifier's head, but .* choose an encoder"):
        backbone.attach(Head(), 0)
