"""The causal learner against what transformers and brute force say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from hanse.data.example import IGNORED, Example
from hanse.federation.interfaces.objective import Objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.batches import Batch
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

MODELS = ["tiny_llama", "tiny_gpt2"]


def _examples(count: int = 12) -> list[Example]:
    """Random tokens of different lengths; the last three are learned."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        length = 6 + number % 5
        ids = tuple(torch.randint(2, 300, (length,), generator=generator).tolist())
        rows.append(Example(ids, (IGNORED,) * (length - 3) + ids[-3:]))
    return rows


def _choices(words: tuple[tuple[int, ...], ...], count: int = 10) -> list[Example]:
    """Examples answered by a word that follows from their first token."""
    rows = []
    for example in _examples(count):
        ids = example.ids
        rows.append(Example(ids, (IGNORED,) * len(ids), words, ids[0] % len(words)))
    return rows


@pytest.fixture(params=MODELS)
def learner(request: pytest.FixtureRequest) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(request.getfixturevalue(request.param)), bf16=False))
    adapter = backbone.attach(Lora(r=4), seed=0)
    training = TrainingSettings(learning_rate=0.01, per_device_train_batch_size=4, max_steps=5)
    splits = {"train": _examples(), "test": _examples()}
    return AdaptedModel(backbone, adapter, splits, training, Sft(), RoundContext(0, 1, "a"), 1, {})


def _folder(learner: AdaptedModel) -> str:
    return learner.backbone.name


def _randomized(learner: AdaptedModel) -> AdaptedModel:
    """B is zero at first; random values make every tensor count."""
    generator = torch.Generator().manual_seed(5)
    for parameter in learner.parameters().values():
        parameter.data.normal_(0, 0.2, generator=generator)
    return learner


def _loss(learner: AdaptedModel, objective: Objective, batch: Batch) -> float:
    with torch.no_grad():
        return float(objective.loss(learner, batch))


def _set_dropout(learner: AdaptedModel, share: float) -> None:
    for module in learner.backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def test_logits_only_where_labelled_equal_those_of_the_whole_model(learner: AdaptedModel) -> None:
    _randomized(learner)
    batch = learner.batch(learner.examples("train"))
    found = learner.forward(batch)
    model = learner.backbone.model
    expected, targets = [], []
    for example in learner.examples("train"):  # one at a time: no padding at all
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0]
        for position in range(1, len(example)):
            if example.labels[position] != IGNORED:
                expected.append(logits[position - 1])
                targets.append(example.labels[position])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert batch.targets.tolist() == targets


@pytest.mark.parametrize("words", [((7,), (9,), (11,)), ((7, 8), (9,), (7, 3, 4))])
def test_scores_are_the_choices_log_probabilities(
    learner: AdaptedModel, words: tuple[tuple[int, ...], ...]
) -> None:
    _randomized(learner)
    examples = _choices(words)
    found = learner.scores(learner.batch(examples)).log_softmax(dim=1)
    rows = []
    for example in examples:
        scores = []
        for word in words:
            ids = torch.tensor([example.ids + word])
            with torch.no_grad():
                logs = learner.backbone.model(input_ids=ids).logits[0].log_softmax(dim=1)
            start = len(example) - 1
            scores.append(sum(logs[start + i, token] for i, token in enumerate(word)))
        rows.append(torch.stack([torch.as_tensor(score) for score in scores]))
    torch.testing.assert_close(found, torch.stack(rows).log_softmax(dim=1), atol=1e-5, rtol=1e-5)


def test_training_lowers_the_loss_and_leaves_the_base_alone(learner: AdaptedModel) -> None:
    learner.training = replace(learner.training, max_steps=30, learning_rate=0.05)
    base = AutoModelForCausalLM.from_pretrained(_folder(learner), dtype=torch.float32)
    batch = learner.batch(learner.examples("train"))
    before = _loss(learner, Sft(), batch)
    fit = learner.fit()
    assert _loss(learner, Sft(), batch) < before - 0.3
    assert fit.steps == 30
    assert fit.examples == 120
    frozen = {n.replace(".base_layer", ""): p for n, p in learner.backbone.model.named_parameters()}
    for name, parameter in base.named_parameters():
        assert torch.equal(frozen[f"base_model.model.{name}"], parameter), name


def test_classification_learns_words_of_several_tokens(learner: AdaptedModel) -> None:
    learner.splits = {"train": _choices(((7, 8), (9,)), 12)}
    learner.training = replace(learner.training, max_steps=40, learning_rate=0.05)
    learner.objective = Classify()
    batch = learner.batch(learner.examples("train"))
    before = _loss(learner, Classify(), batch)
    learner.fit()
    assert _loss(learner, Classify(), batch) < 0.6 * before


def test_accumulated_batches_equal_one_large_batch(learner: AdaptedModel) -> None:
    start = learner.tensors()
    results = []
    for size, micro in ((12, 1), (3, 4)):
        learner.training = TrainingSettings(
            learning_rate=0.01,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=micro,
            num_train_epochs=1,  # one step of all twelve
            optim="sgd",
        )
        results.append(learner.change(start)[0])
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=1e-6, rtol=1e-4)


def test_same_moment_same_result_with_dropout(learner: AdaptedModel) -> None:
    start = learner.tensors()
    _set_dropout(learner, 0.3)
    first, _ = learner.change(start)
    torch.manual_seed(99)  # what the process drew before must not matter
    again, _ = learner.change(start)
    learner.context = replace(learner.context, round=2)
    other, _ = learner.change(start)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_penalty_pulls_towards_where_it_says(learner: AdaptedModel) -> None:
    start = learner.tensors()
    free, _ = learner.change(start)
    held, _ = learner.change(
        start, lambda w: 50.0 * sum((w[n] - start[n]).square().sum() for n in start)
    )
    size = sum(float(t.square().sum()) for t in free.values())
    assert sum(float(t.square().sum()) for t in held.values()) < 0.5 * size


def test_adapters_share_one_base_and_do_not_mix(learner: AdaptedModel) -> None:
    second = learner.backbone.attach(Lora(r=2), seed=1)
    other = replace(learner, adapter=second)
    batch = learner.batch(learner.examples("train"))
    with torch.no_grad():
        before = learner.forward(batch)
    other.fit()
    with torch.no_grad():
        assert torch.equal(learner.forward(batch), before)
        assert not torch.equal(other.forward(batch), before)
    assert {p.shape[0] for n, p in other.parameters().items() if "lora_A" in n} == {2}


LOADED = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
with torch.no_grad():
    logits = model(input_ids=torch.tensor([json.loads(sys.argv[3])])).logits[0, -1]
assert "hanse" not in sys.modules
print(json.dumps(logits.tolist()))
"""


def test_saved_adapter_loads_in_plain_peft(learner: AdaptedModel, tmp_path: Path) -> None:
    _randomized(learner)
    learner.save(tmp_path)
    ids = list(_examples()[0].ids)
    command = [sys.executable, "-c", LOADED, _folder(learner), str(tmp_path), json.dumps(ids)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with torch.no_grad():
        mine = learner.backbone.model(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(torch.tensor(json.loads(out)), mine, atol=1e-6, rtol=1e-6)
    assert (tmp_path / "tokenizer.json").exists()


def test_loss_over_all_labels_is_the_mean_of_transformers(learner: AdaptedModel) -> None:
    examples = _examples(4)
    mine = _loss(learner, Sft(), learner.batch(examples))
    total = torch.zeros(())
    for example in examples:
        with torch.no_grad():
            logits = learner.backbone.model(input_ids=torch.tensor([example.ids])).logits[0, -4:-1]
        total = total + cross_entropy(logits, torch.tensor(example.ids[-3:]), reduction="sum")
    assert mine == pytest.approx(float(total) / 12, abs=1e-5)
