"""Scores of chosen and rejected answers, and of answers with verdicts, against plain loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hanse.data.example import IGNORED, Example
from hanse.evaluation.preference import Preference
from hanse.evaluation.verdict import Verdict
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.batches import collate
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

VERDICTS = (1.0, 0.0, 0.5, 0.5, 2.0)


def _answers(count: int, seed: int) -> list[Example]:
    """Prompts of three tokens and answers of one token or more."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        ids = tuple(torch.randint(2, 300, (4 + number % 4,), generator=draw).tolist())
        rows.append(Example(ids, (IGNORED,) * 3 + ids[3:], prompt=3))
    return rows


def _pairs() -> list[Example]:
    """Each pair of the same prompt, with two answers of unequal length."""
    return [
        Example(
            chosen.ids + chosen.ids[:3] + other.ids[3:],
            chosen.labels + other.labels,
            prompt=3,
            rejected=len(chosen),
        )
        for chosen, other in zip(_answers(7, 0), _answers(9, 1)[2:], strict=True)
    ]


def _learner(folder: Path, examples: list[Example]) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    adapter = backbone.attach(Lora(r=2), seed=0)
    splits = {"test": examples}
    return AdaptedModel(
        backbone, adapter, splits, TrainingSettings(), Sft(), RoundContext(0), 1, {}
    )


def _log_probability(model: Any, ids: tuple[int, ...], labels: tuple[int, ...]) -> float:
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)
    return sum(float(logs[at - 1, ids[at]]) for at in range(1, len(ids)) if labels[at] != IGNORED)


def _halves(model: Any, pair: Example) -> tuple[float, float]:
    at = pair.rejected
    return (
        _log_probability(model, pair.ids[:at], pair.labels[:at]),
        _log_probability(model, pair.ids[at:], pair.labels[at:]),
    )


def test_rows_of_a_batch_are_chosen_answers_and_then_rejected_ones() -> None:
    pairs = _pairs()
    batch = collate(pairs, torch.device("cpu"))
    assert len(batch.ids) == 2 * len(pairs) == len(batch.lengths)
    assert batch.examples == batch.items == len(pairs)
    assert batch.tokens == sum(map(len, pairs))
    for row, pair in enumerate(pairs):
        assert tuple(batch.ids[row, : pair.rejected].tolist()) == pair.ids[: pair.rejected]
        length = batch.lengths[row + len(pairs)]
        assert tuple(batch.ids[row + len(pairs), :length].tolist()) == pair.ids[pair.rejected :]
        targets = batch.targets[batch.rows == row + len(pairs)].tolist()
        assert targets == list(pair.ids[pair.rejected + 3 :])


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_gpt2"])
def test_scores_are_the_answers_log_probabilities(
    name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    learner = _learner(folder, _pairs())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = torch.tensor([_halves(model, pair) for pair in _pairs()])
    with torch.no_grad():
        scores = learner.scores(learner.batch(_pairs()))
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)
    result = Preference(batch_size=3).evaluate(learner, "test")
    margins = expected[:, 0] - expected[:, 1]
    assert result.items == (margins > 0).double().tolist()
    assert 0 < result.metrics["accuracy"] == sum(result.items) / 7 < 1
    assert result.metrics["margin"] == pytest.approx(float(margins.mean()), abs=1e-4)
    assert set(result.metrics) == set(Preference.reports)


def _judged(verdicts: tuple[float, ...]) -> list[Example]:
    return [
        Example(e.ids, e.labels, prompt=3, verdict=verdict)
        for e, verdict in zip(_answers(len(verdicts), 3), verdicts, strict=True)
    ]


def test_concordance_is_the_share_of_pairs_in_the_right_order(tiny_llama: Path) -> None:
    examples = _judged(VERDICTS)
    learner = _learner(tiny_llama, examples)
    batch = learner.batch(examples)
    assert batch.verdicts.tolist() == list(VERDICTS)
    assert batch.items == batch.examples == 5
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    means = [_log_probability(model, e.ids, e.labels) / (len(e) - 3) for e in examples]
    items = []
    for mine, verdict in zip(means, VERDICTS, strict=True):
        right = [
            float((mine > other) == (verdict > judged))
            for other, judged in zip(means, VERDICTS, strict=True)
            if judged != verdict
        ]
        items.append(sum(right) / len(right))
    result = Verdict(batch_size=2).evaluate(learner, "test")
    assert result.items == pytest.approx(items)
    assert result.metrics == {"concordance": pytest.approx(sum(items) / 5)}
    assert 0 < result.metrics["concordance"] < 1


def test_equal_verdicts_cannot_be_compared(tiny_llama: Path) -> None:
    learner = _learner(tiny_llama, _judged((1.0, 1.0)))
    assert Verdict().evaluate(learner, "test").items == [0.5, 0.5]
