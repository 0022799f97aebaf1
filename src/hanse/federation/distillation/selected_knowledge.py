"""Dual minimum cross-entropy: a model learns others' predictions of rows that they predict better.

From FedMKT (Fan et al. 2024, 2406.02224), sections 4.2 and 4.3. In its code a teacher sends its
loss of each text. Here the receiver computes it from the predictions and from labels of its own:
a loss that is sent may be a lie, and is a mean over tokens that the receiver does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.federation.distillation.imitation import Targeted
from hanse.federation.distillation.public_logits import PublicRows
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.tensors import top_k
from hanse.tensors.divergence import LEAST
from hanse.tensors.named import Tensors

Strategy = Literal["greater", "weighted_mean"]
TAKEN, LABELS = "taken", "labels"
SURE = 1e-12  # a label whose -log p is less has all the probability, as one without a match has


@dataclass(frozen=True)
class Knowledge:
    """The predictions that a model learns: parts as of `top_k` for each of its rows.

    taken: (examples,) whether the model learns the rows of an example.
    """

    parts: Tensors
    taken: Tensor


def select(
    teachers: Sequence[Tensors], own: Tensors, rows: PublicRows, strategy: Strategy = "greater"
) -> Knowledge:
    """The teachers' predictions of each example that they predict better than the model itself.

    A loss is -log p(label); a label that is not among the k classes that were sent has its share of
    the rest. A teacher's gain is the model's own loss less the teacher's, added up over the rows of
    an example that the teacher has matched (not `SURE`). An example is learned from the teacher
    with the largest gain, the first of equal ones, if that is above 0; so never without a matched
    row. With all rows matched this is the paper's rule, by which the least loss wins.

    teachers, own: parts as of `top_k` for the rows; own: the model's, with the same k, so that
        what is left out counts against both alike.
    strategy: "weighted_mean" takes the mean of all distributions for one teacher, each row by
        softmax(exp(-l)) over those that have matched it, with l a teacher's mean loss over its
        matched rows of the example. Sums by the paper's code, the rule for taking a reconstruction.
    """
    if strategy == "weighted_mean":
        teachers = [_mean(teachers, rows)]
    at_labels = _losses(own, rows)
    losses = torch.stack([_losses(teacher, rows) for teacher in teachers])
    gains = torch.where(losses < SURE, 0, at_labels - losses)
    largest, best = torch.stack([rows.sums(gain) for gain in gains]).max(dim=0)
    at = best.repeat_interleave(rows.counts), torch.arange(rows.total)
    names = teachers[0]
    chosen = {name: torch.stack([part[name] for part in teachers])[at] for name in names}
    return Knowledge(chosen, largest > 0)


def _losses(parts: Tensors, rows: PublicRows) -> Tensor:
    """(rows,) -log p(label), float64."""
    return -top_k.of_labels(parts, rows.labels, rows.classes)


def _mean(teachers: Sequence[Tensors], rows: PublicRows) -> dict[str, Tensor]:
    """The mean of the teachers' distributions, one-hot where no teacher has matched a row."""
    losses = torch.stack([_losses(teacher, rows) for teacher in teachers])
    matched = losses >= SURE
    sums = torch.stack([rows.sums(own) for own in losses.where(matched, 0)])
    numbers = torch.stack([rows.sums(own) for own in matched.double()])
    of_examples = (sums / numbers.clamp(min=1)).neg().exp()
    scores = of_examples.repeat_interleave(rows.counts, dim=1)
    weights = scores.where(matched | ~matched.any(dim=0), -torch.inf).softmax(dim=0)
    return top_k.mean([*zip(weights[:, :, None], teachers, strict=True)])


@dataclass(frozen=True)
class CoTuning(Objective):
    """λ·CE(label) + (1 - λ)·CE(·, p), the mean over rows; without the second term where not taken.

    p: the distribution that is learned, in which classes left out count as one class.
    rows: of the public examples. weight: λ.
    """

    rows: PublicRows
    knowledge: Knowledge
    weight: float

    def with_targets(self, batch: Any, places: Sequence[int]) -> Targeted:
        index = self.rows.at(places)
        target = {name: part[index] for name, part in self.knowledge.parts.items()}
        taken = self.knowledge.taken.repeat_interleave(self.rows.counts)[index]
        return Targeted(batch, {**target, TAKEN: taken, LABELS: self.rows.labels[index]})

    def loss(self, learner: Learner, batch: Targeted) -> Tensor:
        logits, target = learner.forward(batch.batch), batch.target
        hard = cross_entropy(logits, target[LABELS].to(logits.device))
        student = top_k.log_probabilities(top_k.of_classes(logits, target[top_k.INDICES]))
        p = top_k.log_probabilities(target).exp().to(student.device)
        student = student.masked_fill(student == -torch.inf, LEAST)
        soft = -(p * student).sum(dim=1) * target[TAKEN].to(student.device)
        return self.weight * hard + (1 - self.weight) * soft.mean()
