"""The task classification: labels are scored; accuracy, macro-F1 and AUC."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from torch.nn.functional import cross_entropy

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task
from hanse.journal.records import WrongRow
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from sklearn import metrics as sklearn_metrics

LONGEST = 1000  # characters of a wrong row's text that are kept


@dataclass(frozen=True)
class Classification(Task):
    """The label with the highest score is the answer; an item is 1 if it is right, else 0."""

    example_kind = "label_words"
    reports = ("accuracy", "accuracy_se", "macro_f1", "auc", "loss")
    batch_size: PositiveInt = 32
    wrong_rows: NonNegativeInt = 6  # a split's first wrong rows, whose texts are kept; 0: none

    def evaluate(self, learner: Learner, split: str) -> Scores:
        size = len(learner.examples(split))
        rows: list[torch.Tensor] = [torch.empty(0)] * size  # each: (labels,) scores
        truth = torch.zeros(size, dtype=torch.long)
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                scores = learner.scores(batch).float().cpu()
                truth[places] = batch.choice.cpu()
                for place, row in zip(places, scores, strict=True):
                    rows[place] = row
        result = _metrics(torch.stack(rows), truth)
        return replace(result, wrong=self._wrong(learner, split, result.items))

    def _wrong(self, learner: Learner, split: str, items: list[float]) -> list[WrongRow]:
        """The split's first wrong rows."""
        examples = learner.examples(split)
        places = [place for place, right in enumerate(items) if not right]
        return [
            WrongRow(place, learner.text(examples[place].ids).strip()[:LONGEST])
            for place in places[: self.wrong_rows]
        ]


def _metrics(scores: torch.Tensor, truth: torch.Tensor) -> Scores:
    """Metrics of (items, labels) scores and the (items,) right labels."""
    if not bool(torch.isfinite(scores).all()):
        raise UserError(
            "the model's scores are not finite: it has diverged; lower train.learning_rate."
        )
    answers = scores.argmax(dim=1)
    right = (answers == truth).double()
    accuracy = float(right.mean())
    metrics = {
        "accuracy": accuracy,
        "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / len(truth)),
        "macro_f1": float(
            sklearn_metrics.f1_score(truth, answers, average="macro", zero_division=0.0)
        ),
        "loss": float(cross_entropy(scores, truth)),
    }
    if len(set(truth.tolist())) == scores.shape[1]:  # AUC is defined only when every class occurs
        metrics["auc"] = _auc(scores.double().softmax(dim=1).numpy(), truth.numpy())
    return Scores(metrics, right.tolist(), truth=truth.tolist(), answers=answers.tolist())


def _auc(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The area under the ROC curve; one-versus-rest and unweighted for more than two classes."""
    if probabilities.shape[1] == 2:
        return float(sklearn_metrics.roc_auc_score(truth, probabilities[:, 1]))
    return float(sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr"))
