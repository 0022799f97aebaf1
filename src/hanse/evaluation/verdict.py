"""The task verdict: good answers compared with bad ones by their probability."""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task


@dataclass(frozen=True)
class Verdict(Task):
    """The share of pairs of answers with unlike verdicts whose better answer is the likelier one.

    An answer's probability is the mean of log p over its tokens. For verdicts of two values the
    share, concordance, is the area under the ROC curve. An item is the share for one answer and all
    others; 0.5 if there is no other verdict to compare with.
    """

    example_kind = "verdicts"
    reports = ("concordance",)
    batch_size: PositiveInt = 32

    def evaluate(self, learner: Learner, split: str) -> Scores:
        size = len(learner.examples(split))
        likelihoods, verdicts = (torch.zeros(size, dtype=torch.float64) for _ in range(2))
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                tokens = torch.bincount(batch.rows, minlength=len(places))
                likelihoods[places] = (learner.scores(batch)[:, 0].double() / tokens).cpu()
                verdicts[places] = batch.verdicts.double().cpu()
        items = [
            _concordance(likelihoods[at] - likelihoods, verdicts[at] - verdicts)
            for at in range(size)
        ]
        return Scores({"concordance": sum(items) / size}, items)


def _concordance(likelihoods: Tensor, verdicts: Tensor) -> float:
    """The share of unlike pairs in which both differences have one sign; half of it for a tie."""
    unlike = verdicts != 0
    signs = likelihoods[unlike].sign() * verdicts[unlike].sign()
    return float((signs + 1).mean() / 2) if len(signs) else 0.5
