"""Distillation: a model learns from its labels, and from the outputs of a teacher beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.tensors import top_k
from hanse.tensors.divergence import divergence
from hanse.tensors.layer_matching import attention_distance, hidden_distance

TEACHER = "teacher"
EXAMPLE_KINDS = {"sft": "tokens", "classify": "label_words", "tag": "tags"}


@dataclass(frozen=True)
class Distill(Objective):
    """The loss (1 − w)·CE + w·T²·KL(p ‖ q) + a·H + b·A, a mean over the batch's items.

    CE is the loss of the objective `of`. p = softmax(z / T) for the logits z of the teacher, and q
    for those of the learner: over the vocabulary, over the label words, or over the tags. T² keeps
    the size of the gradient at any temperature (Hinton et al. 2015, 1503.02531). H and A are the
    distances of hidden states and of attention weights at the labels, over pairs of layers
    (`hanse.tensors.layer_matching`, after FedKD); each takes another forward pass of both models.

    The teacher gets no gradient. A learner without a teacher, such as the teacher itself where it
    is trained, has the loss CE.

    of: the objective of the labels. weight: w. temperature: T. reverse: KL(q ‖ p).
    top_k: the teacher's k largest logits, and the mass of all others as one class; None: all.
    hidden, attention: a and b.
    """

    batchable = False
    models: ClassVar[tuple[str, ...]] = (TEACHER,)
    reads_same_tokens: ClassVar[bool] = True

    of: Literal["sft", "classify", "tag"] = "sft"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat = 1.0
    reverse: bool = False
    top_k: PositiveInt | None = None
    hidden: NonNegativeFloat = 0.0
    attention: NonNegativeFloat = 0.0

    @property
    def example_kind(self) -> str:
        return EXAMPLE_KINDS[self.of]

    def require(self, learner: Learner) -> None:
        """Raise UserError for a teacher whose outputs cannot be compared with the learner's."""
        examples = learner.examples("train")[:1]
        if examples and TEACHER in learner.models:
            with torch.no_grad(), learner.without_dropout():
                self.loss(learner, learner.batch(examples))

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        teacher = learner.models.get(TEACHER)
        taught = None if teacher is None or not self.weight else self._taught(teacher, batch)
        logits = self._logits(learner, batch)
        loss = cross_entropy(logits, batch.choice if self.of == "classify" else batch.targets)
        if taught is not None:
            divergences = self._divergences(taught, logits)
            loss = (1 - self.weight) * loss + self.weight * divergences.mean()
        if teacher is not None and self.hidden:
            states = _both(teacher.hidden_states, learner.hidden_states, batch)
            loss = loss + self.hidden * _distance(hidden_distance, *states, "hidden")
        if teacher is not None and self.attention:
            weights = _both(teacher.attentions, learner.attentions, batch)
            loss = loss + self.attention * _distance(attention_distance, *weights, "attention")
        return loss

    def _logits(self, learner: Learner, batch: Any) -> Tensor:
        """(N, classes) for each item."""
        return learner.scores(batch) if self.of == "classify" else learner.forward(batch)

    @torch.no_grad()
    def _taught(self, teacher: Learner, batch: Any) -> Tensor:
        """The teacher's logits."""
        return self._logits(teacher, batch)

    def _divergences(self, taught: Tensor, logits: Tensor) -> Tensor:
        """(N,) T²·KL of each item.

        Models with one tokenizer may have unequal numbers of outputs beyond its tokens; those that
        only one of them has are left out.
        """
        classes = min(taught.shape[1], logits.shape[1])
        taught, logits = taught[:, :classes], logits[:, :classes]
        if self.top_k is None:
            return divergence(taught, logits, self.temperature, self.reverse)
        if self.top_k > classes:
            raise UserError(
                f"distill.top_k is {self.top_k}, and there are {classes:,} classes; lower it, or "
                "set it to none, which takes all of them."
            )
        taught, logits = taught / self.temperature, logits / self.temperature
        known = top_k.top_k(taught, self.top_k)
        own = top_k.of_classes(logits, known[top_k.INDICES])
        both = top_k.log_probabilities(known), top_k.log_probabilities(own)
        return self.temperature**2 * divergence(*both, reverse=self.reverse)


def _both(
    teacher: Callable[[Any], Tensor], learner: Callable[[Any], Tensor], batch: Any
) -> tuple[Tensor, Tensor]:
    """An output of the teacher, without gradients, and then of the learner.

    If they share a base model, the learner's adapter stays active for the backward pass.
    """
    with torch.no_grad():
        target = teacher(batch)
    return target, learner(batch)


def _distance(
    distance: Callable[[Tensor, Tensor], Tensor], target: Tensor, own: Tensor, setting: str
) -> Tensor:
    """The distance of two outputs; raises UserError if they cannot be compared."""
    try:
        return distance(target, own)
    except ValueError as error:
        raise UserError(
            f"the teacher and the trained model have {error}, which have no distance; set "
            f"objective.distill.{setting} to 0, or choose a teacher that has as many."
        ) from None
