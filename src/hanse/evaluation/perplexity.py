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
    """exp of the loss, which is the mean of −log p over all labelled tokens.

    An item is a row's part in the loss l, l + (Σ −log p − l·tokens) / (mean tokens). Its mean is l
    itself, so that intervals treat rows as independent, not tokens (the ratio of two means; Cochran
    1977, Sampling Techniques, ch. 6).
    """

    reports = ("loss", "perplexity")
    batch_size: PositiveInt = 32

    def evaluate(self, learner: Learner, split: str) -> Scores:
        sums, counts = ([0.0] * len(learner.examples(split)) for _ in range(2))
        with torch.inference_mode():
            for places, batch in learner.batches(split, self.batch_size):
                losses = cross_entropy(learner.forward(batch), batch.targets, reduction="none")
                by_row = torch.zeros(len(places), dtype=torch.float64, device=losses.device)
                by_row.index_add_(0, batch.rows, losses.double())
                tokens = torch.bincount(batch.rows, minlength=len(places))
                rows = zip(places, by_row.tolist(), tokens.tolist(), strict=True)
                for place, row_sum, row_tokens in rows:
                    sums[place], counts[place] = row_sum, row_tokens
        loss, mean_tokens = sum(sums) / sum(counts), sum(counts) / len(counts)
        pairs = zip(sums, counts, strict=True)
        items = [loss + (total - loss * count) / mean_tokens for total, count in pairs]
        return Scores({"loss": loss, "perplexity": math.exp(min(loss, 700.0))}, items)
