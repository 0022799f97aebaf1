"""Losses of models that learn from each other's predictions of the same rows."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.tensors.divergence import divergence


@dataclass(frozen=True)
class Predictions:
    """A model's logits of a batch's items (N, classes), and their mean cross-entropy, a scalar.

    Items are examples, whose classes are label words; or labelled places, whose classes are tags or
    the tokens of the vocabulary.
    """

    logits: Tensor
    loss: Tensor


def predictions(learner: Learner, batch: Any) -> Predictions:
    """A model's predictions of a batch, which is of its own or of a model with the same tokens.

    Raises UserError for a batch whose items have no right class, such as pairs of answers.
    """
    if batch.choices:
        logits, truth = learner.scores(batch), batch.choice
    else:
        logits, truth = learner.forward(batch), batch.targets
    if len(truth) != batch.items:
        raise UserError(
            "models learn from each other's predictions only where rows have right answers; choose "
            "the objective sft, classify or tag."
        )
    return Predictions(logits, cross_entropy(logits, truth))


def distillation_loss(
    own: Predictions, other: Predictions, temperature: float = 1.0, reverse: bool = False
) -> Tensor:
    """The mean over items of T²·KL(other ‖ own), or of T²·KL(own ‖ other) if `reverse`.

    Only the first model gets a gradient. Vocabularies that are padded to unequal sizes are compared
    on the tokens that both have.
    """
    classes = min(own.logits.shape[1], other.logits.shape[1])
    target, logits = other.logits[:, :classes].detach(), own.logits[:, :classes]
    return divergence(target, logits, temperature, reverse).mean()
