"""Logits of public rows: computed in batches, and sent as the largest of each and the rest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanse.federation.interfaces.learner import Learner
from hanse.tensors import top_k

PUBLIC = "public"
BLOCK = 512  # rows of logits of which the largest are found at a time
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class PublicRows:
    """The rows of logits that a learner has for its public examples, in their order.

    words: a row has the scores of the label words, one row for each example. Otherwise it has the
        logits at a labelled place.
    counts: (examples,) the rows of each example. classes: the numbers of a row.
    labels: (rows,) the right class of each row; empty for label words.
    """

    words: bool
    counts: Tensor
    classes: int
    labels: Tensor

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of a hash of the labels; empty for label words."""
        if self.words:
            return ""
        sha = hashlib.sha256(self.labels.numpy().tobytes())
        sha.update(self.counts.numpy().tobytes())
        return sha.hexdigest()[:16]

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

    def sums(self, values: Tensor) -> Tensor:
        """(examples,) the sum of (rows,) values over the rows of each example; 0 without any."""
        owner = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        return torch.zeros(len(self.counts), dtype=torch.float64).index_add(0, owner, values)

    def logits(self, learner: Learner, batch: Any) -> Tensor:
        """(n, classes) the rows of a batch, as `at` orders them; differentiable."""
        return learner.scores(batch) if self.words else learner.forward(batch)


@dataclass(frozen=True)
class SentForm:
    """The form in which predictions are sent: k logits of a row, at a temperature, of a dtype.

    batch_size: the examples of a forward pass.
    """

    k: int
    temperature: float = 1.0
    dtype: str = "float32"
    batch_size: int = 8


@torch.no_grad()
def public_rows(learner: Learner, tokens: bool = False) -> PublicRows:
    """The rows of a learner's public examples; one of these goes through the model.

    tokens: the rows are those of labelled places even if there are label words.
    """
    examples = learner.examples(PUBLIC)
    first = learner.batch([examples[0]])
    if not tokens and (classes := learner.scores(first).shape[1]) > 1:
        single = torch.ones(len(examples), dtype=torch.long)
        return PublicRows(True, single, classes, torch.empty(0, dtype=torch.long))
    counts: list[Tensor] = []
    labels: list[Tensor] = []
    for start in range(0, len(examples), BLOCK):
        places = range(start, min(start + BLOCK, len(examples)))
        batch = learner.batch([examples[place] for place in places])
        counts.append(torch.bincount(batch.rows.cpu(), minlength=len(places)))
        labels.append(batch.targets.cpu())
    classes = learner.forward(first).shape[1]
    return PublicRows(False, torch.cat(counts), classes, torch.cat(labels))


@torch.no_grad()
def predictions(learner: Learner, rows: PublicRows, form: SentForm) -> dict[str, Tensor]:
    """The largest logits of each public row: log softmax(logits / temperature) of k classes.

    The parts are those of `top_k`: values (N, k), indices (N, k), and rest (N,) if k is less than
    the number of classes.
    """
    empty = top_k.top_k(torch.empty(0, rows.classes), form.k)
    result = {name: part.new_empty(rows.total, *part.shape[1:]) for name, part in empty.items()}
    for places, batch in learner.batches(PUBLIC, form.batch_size):
        logits = rows.logits(learner, batch)
        blocks = (torch.split(tensor, BLOCK) for tensor in (logits, rows.at(places)))
        for block, index in zip(*blocks, strict=True):
            scaled = (block.float() / form.temperature).log_softmax(dim=1)
            for name, part in top_k.top_k(scaled, form.k).items():
                result[name][index] = part.cpu()
    dtype = DTYPES[form.dtype]
    return {n: part if n == top_k.INDICES else part.to(dtype) for n, part in result.items()}
