"""A classification's right and wrong answers on the test rows, by label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.evaluation.metrics.confidence import share
from hanse.journal.records import Evaluation
from hanse.reports import formatting
from hanse.reports.run.run_data import RunData

COMMON = 3  # kinds of mistakes that are named
WIDEST = 40  # labels of a matrix that can still be read


@dataclass(frozen=True)
class ClassScores:
    """One label: its test rows, how many rows the model gave it, and how many of them rightly."""

    name: str
    rows: int
    answered: int
    right: int

    @property
    def precision(self) -> float | None:
        """The share of right ones among the rows that the model gave the label."""
        return self.right / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        """The share of the label's rows that the model found."""
        return self.right / self.rows if self.rows else None

    @property
    def interval(self) -> str:
        """The 95 % interval of the recall."""
        if self.recall is None:
            return "–"
        bounds = share(self.recall, self.rows)
        return formatting.bounds(bounds.low, bounds.high, "accuracy")

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None if the label occurs nowhere."""
        total = self.rows + self.answered
        return 2 * self.right / total if total else None


@dataclass(frozen=True)
class Wrong:
    """A wrong row: its number among the test rows from 1, its text, its label and the answer."""

    number: int
    text: str
    truth: str
    answer: str


@dataclass(frozen=True)
class Confusion:
    """The answers after training.

    counts: rows by true label and by answer; empty if there are more labels than can be shown.
    common: the most frequent mistakes: true label, answer, number of rows.
    """

    size: int
    classes: tuple[ClassScores, ...]
    counts: tuple[tuple[int, ...], ...]
    common: tuple[tuple[str, str, int], ...]
    wrong: tuple[Wrong, ...]


def confusion(run: RunData) -> Confusion | None:
    """The answers of a run's last test after training; None if it classified nothing."""
    for by_round in run.tests.values():
        scored = by_round[max(by_round)]
        if max(by_round) > 0 and scored.truth and len(scored.truth) == len(scored.answers):
            return _confusion(scored, list(map(str, run.settings.labels)))
    return None


def _confusion(scored: Evaluation, labels: Sequence[str]) -> Confusion:
    """The answers of one evaluation; labels: in the order of the classes."""
    size = max(len(labels), 1 + max((*scored.truth, *scored.answers)))
    names = [labels[at] if at < len(labels) else f"class {at}" for at in range(size)]
    rows, answered = Counter(scored.truth), Counter(scored.answers)
    pairs = Counter(zip(scored.truth, scored.answers, strict=True))
    mistakes = sorted((-count, *pair) for pair, count in pairs.items() if len({*pair}) > 1)
    shown = range(size) if size <= WIDEST else ()
    return Confusion(
        size=len(scored.truth),
        classes=tuple(
            ClassScores(name, rows[at], answered[at], pairs[at, at])
            for at, name in enumerate(names)
        ),
        counts=tuple(tuple(pairs[truth, answer] for answer in shown) for truth in shown),
        common=tuple((names[t], names[a], -count) for count, t, a in mistakes[:COMMON]),
        wrong=tuple(
            Wrong(row.place + 1, row.text, names[scored.truth[row.place]], names[answer])
            for row in scored.wrong
            if row.place < len(scored.truth)
            for answer in [scored.answers[row.place]]
        ),
    )
