"""Dual minimum cross-entropy: a model learns others' predictions of rows that they predict better.

From FedMKT (Fan et al. 2024, 2406.02224), sections 4.2 and 4.3.
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
from hanse.tensors.named import Tensors, drop

Strategy = Literal["greater", "weighted_mean"]
LOSSES, TAKEN, LABELS = "losses", "taken", "labels"


@dataclass(frozen=True)
class Knowledge:
    """The predictions that a model learns: parts as of `top_k` for each of its rows.

    taken: (examples,) whether the model learns the rows of an example.
    """

    parts: Tensors
    taken: Tensor


def select(
    teachers: Sequence[Tensors], own: Tensor, rows: PublicRows, strategy: Strategy = "greater"
) -> Knowledge:
    """The teachers' predictions of each example whose loss is below the model's own.

    teachers: each with the parts of `top_k` for the rows, and the losses (examples,) of the
        teacher.
    own: (examples,) the model's losses.
    strategy: "greater" takes the teacher of the least loss l, the first of equal ones;
        "weighted_mean" the mean of all distributions by softmax(exp(-l)), whose loss is taken to be
        the mean of theirs (a reconstruction; that of the mixture is at most this).
    """
    parts = [drop(teacher, {LOSSES}) for teacher in teachers]
    losses = torch.stack([teacher[LOSSES].double() for teacher in teachers])
    if strategy == "weighted_mean":
        weights = losses.neg().exp().softmax(dim=0)
        of_rows = weights.repeat_interleave(rows.counts, dim=1)[:, :, None]
        mean = top_k.mean([*zip(of_rows, parts, strict=True)])
        return Knowledge(mean, (weights * losses).sum(dim=0) < own)
    least, best = losses.min(dim=0)
    at = best.repeat_interleave(rows.counts), torch.arange(rows.total)
    chosen = {name: torch.stack([part[name] for part in parts])[at] for name in parts[0]}
    return Knowledge(chosen, least < own)


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
        soft = -(p * student).sum(dim=1) * target[TAKEN].to(student.device)
        return self.weight * hard + (1 - self.weight) * soft.mean()
