"""The task tagging: accuracy over words, and precision, recall and F1 over entities."""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch.nn.functional import cross_entropy

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import standard_error
from hanse.evaluation.metrics.entities import is_scheme, matches
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task


@dataclass(frozen=True)
class Tagging(Task):
    """The tag with the highest score is the answer, for every word that the model reads.

    An item is a row's part in the accuracy a over words, a + (right − a·words) / (mean words). Its
    mean is a itself, so that intervals treat rows as independent, not words (the ratio of two
    means; Cochran 1977, Sampling Techniques, ch. 6). If all tags are B-…, I-… or O, entities are
    compared, too: one is right if its kind and both its ends are, and all have equal weight
    (micro-averaged). Words that max_length cuts off are not counted.
    """

    example_kind = "tags"
    reports = ("accuracy", "accuracy_se", "precision", "recall", "f1", "loss")
    batch_size: PositiveInt = 32

    def evaluate(self, learner: Learner, split: str) -> Scores:
        examples = learner.examples(split)
        truth: list[list[int]] = [[] for _ in examples]
        answers: list[list[int]] = [[] for _ in examples]
        total = 0.0
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                logits = learner.forward(batch)  # (N, classes)
                total += float(cross_entropy(logits, batch.targets, reduction="sum"))
                sizes = torch.bincount(batch.rows, minlength=len(places)).tolist()
                pairs = zip(
                    torch.split(batch.targets, sizes),
                    torch.split(logits.argmax(dim=1), sizes),
                    strict=True,
                )
                for place, (right, predicted) in zip(places, pairs, strict=True):
                    truth[place], answers[place] = right.tolist(), predicted.tolist()
        names = examples[0].classes
        return _metrics(truth, answers, total, names)


def _metrics(
    truth: list[list[int]], answers: list[list[int]], total: float, names: tuple[str, ...]
) -> Scores:
    """Metrics of the rows' tags; total: the sum of the words' losses."""
    words = sum(map(len, truth))
    if not torch.isfinite(torch.tensor(total)):
        raise UserError(
            "the model's scores are not finite: it has diverged; lower train.learning_rate."
        )
    right = [
        sum(a == b for a, b in zip(row, answer, strict=True))
        for row, answer in zip(truth, answers, strict=True)
    ]
    accuracy, mean = sum(right) / words, words / len(truth)
    items = [
        accuracy + (count - accuracy * len(row)) / mean
        for count, row in zip(right, truth, strict=True)
    ]
    metrics = {"accuracy": accuracy}
    if len(items) > 1:
        metrics["accuracy_se"] = standard_error(items)
    if is_scheme(names):
        tags = ([[names[tag] for tag in row] for row in rows] for rows in (truth, answers))
        metrics |= matches(*tags).metrics()
    return Scores({**metrics, "loss": total / words}, items)
