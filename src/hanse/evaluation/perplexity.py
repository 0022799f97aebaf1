"""The task perplexity: loss and perplexity of the labelled tokens."""

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch.nn.functional import cross_entropy

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task


@dataclass(frozen=True)
class Perplexity(Task):
    """exp of the mean −log p over all labelled tokens; an item is the mean of one example."""

    reports = ("loss", "perplexity")
    batch_size: PositiveInt = 32

    def evaluate(self, learner: Learner, split: str) -> Scores:
        items = [0.0] * len(learner.examples(split))
        total, count = 0.0, 0
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                losses = cross_entropy(learner.forward(batch), batch.targets, reduction="none")
                sums = torch.zeros(len(places), dtype=torch.float64, device=losses.device)
                sums.index_add_(0, batch.rows, losses.double())
                counts = torch.bincount(batch.rows, minlength=len(places))
                for place, mean in zip(places, (sums / counts).tolist(), strict=True):
                    items[place] = mean
                total, count = total + float(sums.sum()), count + int(counts.sum())
        loss = total / count
        return Scores({"loss": loss, "perplexity": math.exp(min(loss, 700.0))}, items)
