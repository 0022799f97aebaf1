"""Losses of models that learn from each other's answers to the same rows."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.tensors.divergence import divergence


@dataclass(frozen=True)
class Answers:
    """A model's logits of a batch's items (N, classes), and their mean cross-entropy, a scalar.

    Items are examples, whose classes are label words; or labelled places, whose classes are tags or
    the tokens of the vocabulary.
    """

    logits: Tensor
    loss: Tensor


def answers(learner: Learner, batch: Any) -> Answers:
    """A model's answers to a batch, which is of its own or of a model with the same tokens.

    Raises UserError for a batch whose items have no right class, such as pairs of answers.
    """
    if batch.choices:
        logits, truth = learner.scores(batch), batch.choice
    else:
        logits, truth = learner.forward(batch), batch.targets
    if len(truth) != batch.items:
        raise UserError(
            "models learn from each other's answers only where a row has right ones; choose the "
            "objective sft, classify or tag."
        )
    return Answers(logits, cross_entropy(logits, truth))


def pull(own: Answers, other: Answers, temperature: float = 1.0, reverse: bool = False) -> Tensor:
    """The mean over items of T²·KL(other ‖ own), or of T²·KL(own ‖ other) if `reverse`.

    Only the first model gets a gradient. Vocabularies that are padded to unequal sizes are compared
    on the tokens that both have.
    """
    classes = min(own.logits.shape[1], other.logits.shape[1])
    target, logits = other.logits[:, :classes].detach(), own.logits[:, :classes]
    return divergence(target, logits, temperature, reverse).mean()
