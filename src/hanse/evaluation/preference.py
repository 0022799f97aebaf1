"""The task preference: the share of pairs of answers whose chosen answer is the likelier one."""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt

from hanse.evaluation.metrics.confidence import standard_error
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task


@dataclass(frozen=True)
class Preference(Task):
    """An item is 1 if the chosen answer is likelier than the rejected one, and 0 otherwise.

    log p(answer | prompt) is the sum over its tokens, as in DPO. Longer answers are less likely, so
    the share says something beside that of the model before training only.
    margin: the mean of log p(chosen) − log p(rejected).
    """

    example_kind = "answer_pairs"
    reports = ("accuracy", "accuracy_se", "margin")
    batch_size: PositiveInt = 16

    def evaluate(self, learner: Learner, split: str) -> Scores:
        margins = [0.0] * len(learner.examples(split))
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                chosen, rejected = learner.scores(batch).double().unbind(dim=1)
                for place, margin in zip(places, (chosen - rejected).tolist(), strict=True):
                    margins[place] = margin
        items = [float(margin > 0) for margin in margins]
        metrics = {"accuracy": sum(items) / len(items)}
        if len(items) > 1:
            metrics["accuracy_se"] = standard_error(items)
        return Scores({**metrics, "margin": sum(margins) / len(margins)}, items)
