"""Logits of public rows: computed in batches, and sent as the largest of each and the rest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanse.federation.interfaces.learner import Learner
from hanse.tensors import top_k
from hanse.tensors.named import Tensors

PUBLIC = "public"
BLOCK = 512  # rows of logits of which the largest are found at a time
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class PublicRows:
    """The rows of logits that a learner has for its public examples, in their order.

    words: a row has the scores of the label words, one row for each example. Otherwise it has the
        logits at a labelled place.
    counts: (examples,) the rows of each example. classes: the numbers of a row.
    digest: 16 hexadecimal digits of a hash of the labels; empty for label words.
    """

    words: bool
    counts: Tensor
    classes: int
    digest: str

    @property
    def total(self) -> int:
        """The number of rows of all examples."""
        return int(self.counts.sum())

    def at(self, places: Sequence[int]) -> Tensor:
        """(n,) the rows of the examples at these places, example by example."""
        counts = self.counts[list(places)]
        before = (self.counts.cumsum(0) - self.counts)[list(places)]
        skipped = (counts.cumsum(0) - counts - before).repeat_interleave(counts)
        return torch.arange(len(skipped)) - skipped

    def logits(self, learner: Learner, batch: Any) -> Tensor:
        """(n, classes) the rows of a batch, as `at` orders them; differentiable."""
        return learner.scores(batch) if self.words else learner.forward(batch)


@torch.no_grad()
def public_rows(learner: Learner) -> PublicRows:
    """The rows of a learner's public examples; one of these goes through the model."""
    examples = learner.examples(PUBLIC)
    first = learner.batch([examples[0]])
    scores = learner.scores(first)
    if scores.shape[1] > 1:
        return PublicRows(True, torch.ones(len(examples), dtype=torch.long), scores.shape[1], "")
    counts, sha = torch.zeros(len(examples), dtype=torch.long), hashlib.sha256()
    for start in range(0, len(examples), BLOCK):
        places = range(start, min(start + BLOCK, len(examples)))
        batch = learner.batch([examples[place] for place in places])
        counts[start : places.stop] = torch.bincount(batch.rows.cpu(), minlength=len(places))
        sha.update(batch.targets.cpu().numpy().tobytes())
    sha.update(counts.numpy().tobytes())
    return PublicRows(False, counts, learner.forward(first).shape[1], sha.hexdigest()[:16])


@torch.no_grad()
def largest_logits(
    learner: Learner, rows: PublicRows, k: int, temperature: float, dtype: str, size: int
) -> dict[str, Tensor]:
    """The k largest logarithms of softmax(logits / temperature) of each public row, as `top_k`.

    values (N, k), indices (N, k), and rest (N,) if k is less than the number of classes.
    size: the examples of a forward pass.
    """
    form = top_k.top_k(torch.empty(0, rows.classes), k)
    result = {name: part.new_empty(rows.total, *part.shape[1:]) for name, part in form.items()}
    for places, batch in learner.batches(PUBLIC, size):
        logits = rows.logits(learner, batch)
        blocks = (torch.split(tensor, BLOCK) for tensor in (logits, rows.at(places)))
        for block, index in zip(*blocks, strict=True):
            scaled = (block.float() / temperature).log_softmax(dim=1)
            for name, part in top_k.top_k(scaled, k).items():
                result[name][index] = part.cpu()
    return rounded(result, DTYPES[dtype])


def rounded(parts: Tensors, dtype: torch.dtype) -> dict[str, Tensor]:
    """The same parts with numbers of another type, none of which is infinite."""
    least = torch.finfo(dtype).min
    return {
        name: part if name == top_k.INDICES else part.clamp(min=least).to(dtype)
        for name, part in parts.items()
    }
