"""Scores of tags against brute force and hand-made sentences."""

import random
import statistics
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.evaluation.metrics.entities import is_scheme, matches, spans
from hanse.evaluation.tagging import Tagging

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")


def _brute(tags: tuple[str, ...]) -> set[tuple[str, int, int]]:
    """Every stretch of words that is an entity by the definition, and cannot be longer."""

    def begins(at: int) -> bool:
        before = tags[at - 1] if at else "O"
        return tags[at][0] == "B" or (tags[at][0] == "I" and before[2:] != tags[at][2:])

    def whole(start: int, end: int) -> bool:
        goes_on = all(tags[k] == f"I-{tags[start][2:]}" for k in range(start + 1, end))
        ends = end == len(tags) or tags[end] != f"I-{tags[start][2:]}"
        return begins(start) and goes_on and ends

    stretches = product(range(len(tags)), range(1, len(tags) + 1))
    return {(tags[a][2:], a, b) for a, b in stretches if a < b and whole(a, b)}


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_spans_are_those_of_the_definition_for_all_short_sentences(length: int) -> None:
    for tags in product(TAGS, repeat=length):
        assert set(map(tuple, spans(tags))) == _brute(tags), tags


def test_entities_are_counted_over_all_sentences() -> None:
    draw = random.Random(0)
    truth, found = (
        [tuple(draw.choices(TAGS, k=draw.randint(1, 9))) for _ in range(50)] for _ in range(2)
    )
    found = [draw.choice((a, b[: len(a)] + a[len(b) :])) for a, b in zip(truth, found, strict=True)]
    there = {(n, *span) for n, tags in enumerate(truth) for span in _brute(tags)}
    said = {(n, *span) for n, tags in enumerate(found) for span in _brute(tags)}
    right = len(there & said)
    counted = matches(truth, found)
    assert counted == (right, len(said), len(there))
    precision, recall = right / len(said), right / len(there)
    metrics = counted.metrics()
    assert (metrics["precision"], metrics["recall"]) == (precision, recall)
    assert metrics["f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_nothing_found_is_nothing_right() -> None:
    assert matches([("B-a",)], [("O",)]).metrics() == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


@pytest.mark.parametrize(
    ("names", "is_one"),
    [(TAGS, True), (("O",), False), (("NN", "VB"), False), (("B-a", "X"), False), (("B-",), False)],
)
def test_the_scheme_is_known_by_its_tags(names: tuple[str, ...], is_one: bool) -> None:
    assert is_scheme(names) is is_one


class Known:
    """A learner whose outputs are known; every second token begins a word."""

    def __init__(self, rows: list[list[int]], names: tuple[str, ...], sure: float = 5.0) -> None:
        draw = random.Random(1)
        self.said = [[draw.randrange(len(names)) for _ in row] for row in rows]
        self.rows = [
            Example(
                tuple(range(2 * len(row))),
                (IGNORED,) * (2 * len(row)),
                tags=tuple(tag for own in row for tag in (own, IGNORED)),
                classes=names,
            )
            for row in rows
        ]
        self.truth, self.sure = rows, sure

    def examples(self, split: str) -> list[Example]:
        return self.rows

    def batches(self, split: str, size: int) -> Iterator[tuple[list[int], Any]]:
        order = sorted(range(len(self.rows)), key=lambda row: -len(self.rows[row]))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            targets = [tag for place in places for tag in self.truth[place]]
            rows = [n for n, place in enumerate(places) for _ in self.truth[place]]
            yield (
                places,
                SimpleNamespace(
                    places=places, targets=torch.tensor(targets), rows=torch.tensor(rows)
                ),
            )

    def forward(self, batch: Any) -> torch.Tensor:
        said = [tag for place in batch.places for tag in self.said[place]]
        return self.sure * torch.eye(len(self.rows[0].classes))[said]


def test_metrics_by_hand_and_items_whose_mean_is_the_accuracy() -> None:
    draw = random.Random(2)
    rows = [[draw.randrange(5) for _ in range(draw.randint(1, 12))] for _ in range(70)]
    learner: Any = Known(rows, TAGS)
    scores = Tagging(batch_size=8).evaluate(learner, "test")
    pairs = [
        (a, b)
        for row, said in zip(rows, learner.said, strict=True)
        for a, b in zip(row, said, strict=True)
    ]
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    assert scores.metrics["accuracy"] == accuracy
    assert sum(scores.items) / len(rows) == pytest.approx(accuracy)
    for row, said, item in zip(rows, learner.said, scores.items, strict=True):
        right = sum(a == b for a, b in zip(row, said, strict=True))
        mean = len(pairs) / len(rows)
        assert item == pytest.approx(accuracy + (right - accuracy * len(row)) / mean)
    named = [[[TAGS[tag] for tag in row] for row in every] for every in (rows, learner.said)]
    assert scores.metrics["f1"] == matches(*named).metrics()["f1"]


def test_the_standard_error_is_that_of_other_rows_drawn_alike() -> None:
    """Against the bootstrap over rows, whose accuracies differ and go with their length."""
    draw, size = random.Random(3), 400
    rows = [[0] * draw.choice((2, 30)) for _ in range(size)]
    learner: Any = Known(rows, ("NN", "VB"))
    learner.said = [
        [int(draw.random() < (0.4 if len(row) > 9 else 0.1)) for _ in row] for row in rows
    ]
    scores = Tagging().evaluate(learner, "test")
    assert scores.metrics.keys() <= {*Tagging.reports}
    right = [row.count(0) for row in learner.said]

    def again() -> float:
        some = draw.choices(range(size), k=size)
        return sum(right[n] for n in some) / sum(len(rows[n]) for n in some)

    spread = statistics.stdev(again() for _ in range(1000))
    assert scores.metrics["accuracy_se"] == pytest.approx(spread, rel=0.15)


def test_plain_tags_have_no_entities() -> None:
    learner: Any = Known([[0, 1], [1]], ("NN", "VB"))
    assert set(Tagging().evaluate(learner, "test").metrics) == {"accuracy", "accuracy_se", "loss"}


def test_a_diverged_model_is_said_to_be_one() -> None:
    learner: Any = Known([[0, 1]], ("NN", "VB"), sure=float("nan"))
    with pytest.raises(UserError, match=r"diverged; lower train\.learning_rate"):
        Tagging().evaluate(learner, "test")
