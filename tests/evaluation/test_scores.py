"""Scores and intervals against hand-made cases and brute force."""

import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from hanse.evaluation.classification import Classification
from hanse.evaluation.metrics.confidence import paired
from hanse.evaluation.perplexity import Perplexity


@dataclass
class Item:
    """An example whose scores are known: its length, its right choice, its row of scores."""

    length: int
    choice: int
    row: list[float]
    ids: tuple[int, ...] = (1, 2)

    def __len__(self) -> int:
        return self.length


@dataclass
class Rows:
    """A batch of such items."""

    choice: torch.Tensor
    found: torch.Tensor


class Known:
    """A learner that answers what its items say, in batches of like length."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def examples(self, split: str) -> list[Item]:
        return self.items

    def batches(self, split: str, size: int) -> Any:
        order = sorted(range(len(self.items)), key=lambda index: -len(self.items[index]))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            chosen = [self.items[place] for place in places]
            choice = torch.tensor([item.choice for item in chosen])
            yield places, Rows(choice, torch.tensor([item.row for item in chosen]))

    def scores(self, batch: Rows) -> torch.Tensor:
        return batch.found

    def text(self, ids: tuple[int, ...]) -> str:
        return f"text {ids}" + " and so on" * 200


def _items(count: int, choices: int) -> list[Item]:
    draw = random.Random(choices)
    rows = [[draw.gauss(0, 1) for _ in range(choices)] for _ in range(count)]
    return [Item(draw.randint(1, 30), draw.randrange(choices), row) for row in rows]


@pytest.mark.parametrize("choices", [2, 3])
def test_classification_against_counting(choices: int) -> None:
    items = _items(101, choices)
    found = Classification(batch_size=8).evaluate(Known(items), "test")  # type: ignore[arg-type]
    assert found.metrics.keys() <= {*Classification.reports}
    answers = [max(range(choices), key=item.row.__getitem__) for item in items]
    right = [float(a == item.choice) for a, item in zip(answers, items, strict=True)]
    assert found.items == right, "in the order of the split, not of the batches"
    accuracy = sum(right) / 101
    assert found.metrics["accuracy"] == pytest.approx(accuracy)
    assert found.metrics["accuracy_se"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 101))
    f1 = []
    for label in range(choices):
        hits = sum(a == label == i.choice for a, i in zip(answers, items, strict=True))
        said = answers.count(label)
        true = sum(item.choice == label for item in items)
        f1.append(2 * hits / (said + true))
    assert found.metrics["macro_f1"] == pytest.approx(sum(f1) / choices)


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    items = _items(60, 2)
    found = Classification().evaluate(Known(items), "test")  # type: ignore[arg-type]
    gap = [item.row[1] - item.row[0] for item in items]
    pairs = [
        gap[i] > gap[j]
        for i in range(60)
        for j in range(60)
        if items[i].choice == 1 and items[j].choice == 0
    ]
    assert found.metrics["auc"] == pytest.approx(sum(pairs) / len(pairs))


def test_answers_and_the_first_wrong_rows_are_kept() -> None:
    rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    items = [Item(1, number // 2, row, (number,)) for number, row in enumerate(rows)]
    found = Classification(wrong_rows=1).evaluate(Known(items), "test")  # type: ignore[arg-type]
    assert (found.truth, found.answers) == ([0, 0, 1, 1], [0, 1, 0, 1])
    (wrong,) = found.wrong
    assert wrong.place == 1 and wrong.text.startswith("text (1,)") and len(wrong.text) == 1000
    without = Classification(wrong_rows=0)
    assert without.evaluate(Known(items), "test").wrong == []  # type: ignore[arg-type]


def test_auc_is_left_out_where_one_class_is_missing() -> None:
    items = [Item(1, 0, [1.0, 0.0]) for _ in range(5)]
    assert "auc" not in Classification().evaluate(Known(items), "test").metrics  # type: ignore[arg-type]


def test_perplexity_weighs_tokens_and_items_alike() -> None:
    class Tokens(Known):
        """Two examples with one and three labelled tokens, in one batch, longest first."""

        def batches(self, split: str, size: int) -> Any:
            batch = Rows(torch.zeros(0), torch.tensor([[0.0, 0], [0, 0], [0, 0], [2, 0]]))
            batch.targets = torch.tensor([0, 1, 0, 0])  # type: ignore[attr-defined]
            batch.rows = torch.tensor([0, 0, 0, 1])  # type: ignore[attr-defined]
            yield [1, 0], batch

        def forward(self, batch: Rows) -> torch.Tensor:
            return batch.found

    items = [Item(1, 0, []), Item(3, 0, [])]
    found = Perplexity().evaluate(Tokens(items), "test")  # type: ignore[arg-type]
    assert found.metrics.keys() <= {*Perplexity.reports}
    short, long = math.log(1 + math.exp(-2)), math.log(2)
    loss = (short + 3 * long) / 4
    assert found.metrics["loss"] == pytest.approx(loss)
    assert found.items == pytest.approx([loss + (short - loss) / 2, loss + 3 * (long - loss) / 2])
    assert sum(found.items) / 2 == pytest.approx(loss), "one loss, whatever is printed of it"
    assert found.metrics["perplexity"] == pytest.approx(math.exp((short + 3 * long) / 4))


def test_paired_interval_covers_as_often_as_it_says() -> None:
    draw = random.Random(0)
    covered = 0
    for _ in range(400):
        hard = [draw.gauss(0, 3) for _ in range(200)]
        before = [h + draw.gauss(0, 1) for h in hard]
        after = [h + 0.2 + draw.gauss(0, 1) for h in hard]
        found = paired(after, before)
        assert found is not None
        covered += found.low <= 0.2 <= found.high
        assert found.high - found.low < 0.6, "what is hard for both does not widen it"
    assert 0.92 < covered / 400 < 0.98


def test_what_cannot_be_paired() -> None:
    assert paired([1.0], [0.0]) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([], [])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0, 2.0], [1.0])
