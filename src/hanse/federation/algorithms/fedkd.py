"""FedKD (Wu et al. 2022, 2108.13323): a mentor stays at each client, and a mentee is averaged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.distillation.mutual import distillation_loss, predictions
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.model_requirements import ModelFacts
from hanse.federation.interfaces.objective import Objective
from hanse.federation.messages import Instruction, Update
from hanse.tensors.layer_matching import attention_distance, hidden_distance
from hanse.tensors.named import Tensors, add_prefix, strip_prefix, subtract

MENTOR, PREFIX, PROJECTION = "mentor", "mentor.", "projection"
UNEQUAL_HEADS = (
    "the mentor and the model that travels have {}, which have no distance; set "
    "algorithm.fedkd.attention_maps to false, or choose a mentor that has as many."
)


@dataclass(frozen=True)
class MutualDistillation(Objective):
    """Lₜ + Lₛ of a mentor t and a mentee s, each of which gets the gradient of its own loss alone.

    Lₜ = CEₜ + [KL(pₛ ‖ pₜ) + Lʰ]/Z and Lₛ = CEₛ + [KL(pₜ ‖ pₛ) + Lʰ]/Z with Z = CEₜ + CEₛ (sections
    2.2 and 2.3 of the paper). Z, and the other model's p in each KL, are constants to the gradient.
    CE and KL are means over the items of a micro-batch, so Z is the same for all of them. Lʰ is
    MSE(Hₜ, W·Hₛ) + MSE(Aₜ, Aₛ) of hidden states and attention at the labelled places, counted once
    in the sum, where both models and W get their gradients of it. The paper names no layers; those
    compared are the pairs of its published code (`hanse.tensors.layer_matching`).

    distill: with KL. hidden, attention: with the first and the second term of Lʰ.
    projection: W, (mentor's width, mentee's width), one for all layers; None: the widths are equal,
        and W is the identity.
    """

    batchable: ClassVar[bool] = False
    models: ClassVar[tuple[str, ...]] = (MENTOR,)

    distill: bool = True
    hidden: bool = False
    attention: bool = False
    projection: Parameter | None = None

    def parameters(self) -> dict[str, Parameter]:
        return {} if self.projection is None else {PROJECTION: self.projection}

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        mentor = learner.models[MENTOR]
        teacher, student = predictions(mentor, batch), predictions(learner, batch)
        loss = teacher.loss + student.loss
        z = loss.detach().clamp(min=torch.finfo(loss.dtype).tiny)
        if self.distill:
            loss = (
                loss
                + (distillation_loss(teacher, student) + distillation_loss(student, teacher)) / z
            )
        if self.hidden:
            loss = loss + self._hidden_distance(mentor, learner, batch) / z
        if self.attention:
            loss = loss + _attention_distance(mentor, learner, batch) / z
        return loss

    def _hidden_distance(self, mentor: Learner, learner: Learner, batch: Any) -> Tensor:
        """The mean squared difference of paired layers' states, after the projection."""
        theirs, own = mentor.hidden_states(batch), learner.hidden_states(batch)
        return hidden_distance(theirs, own if self.projection is None else own @ self.projection.T)


def _attention_distance(mentor: Learner, learner: Learner, batch: Any) -> Tensor:
    """The distance of paired layers' attention; raises UserError for unequal numbers of heads."""
    try:
        return attention_distance(mentor.attentions(batch), learner.attentions(batch))
    except ValueError as error:
        raise UserError(UNEQUAL_HEADS.format(error)) from None


@dataclass(frozen=True)
class FedKD(FedAvg):
    """A client trains a mentor and a mentee in the same steps; the mentees' changes are averaged.

    Both learn their rows and each other's answers, weighted less while both are often wrong. The
    mentor, and the projection between unequal widths, never leave the client, which is scored by
    its mentor. The mentee is `model`, the mentor is `models.mentor`, with the same tokens or
    classes. Their cross-entropy takes the place of the objective's loss. What is sent does not
    depend on the losses; `compression: [svd]` is the paper's codec.

    distillation: with both divergences. hidden_states, attention_maps: with the distance of hidden
        states and of attention over pairs of layers, each at the cost of another forward pass of
        both models; the paper has both. Attention needs models with as many heads.
    """

    client_models: ClassVar[tuple[str, ...]] = (MENTOR,)
    co_trained: ClassVar[tuple[str, ...]] = (MENTOR,)
    replaces_loss: ClassVar[tuple[str, ...]] = ("train",)
    keeps: ClassVar[str] = MENTOR

    distillation: bool = True
    hidden_states: bool = False
    attention_maps: bool = False

    def require(self, trained: ModelFacts, beside: Mapping[str, ModelFacts]) -> None:
        if not self.attention_maps or MENTOR not in beside:  # the server has none
            return
        heads = beside[MENTOR].heads, trained.heads
        if None not in heads and heads[0] != heads[1]:
            raise UserError(UNEQUAL_HEADS.format(f"{heads[0]} and {heads[1]} heads of attention"))

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner, mentor = client.learner, client.learner.models[MENTOR]
        mentor.load(self.personalized(instruction, client))
        learner.load(instruction.tensors)
        projection = _projection(client) if self.hidden_states else None
        terms = self.distillation, self.hidden_states, self.attention_maps
        objective = MutualDistillation(*terms, projection)
        result = learner.fit(objective=objective, beside=(MENTOR,))
        client.memory.update(add_prefix(PREFIX, mentor.tensors()))
        if projection is not None:
            client.memory[PROJECTION] = projection.detach().cpu().clone()
        change = subtract(learner.tensors(), instruction.tensors)
        return Update(change, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        """The mentor's tensors."""
        return strip_prefix(client.memory, PREFIX) or client.learner.models[MENTOR].initial()


def _projection(client: Client) -> Parameter | None:
    """W, as the last round has left it, or drawn; None for models of equal widths."""
    learner = client.learner
    batch = learner.batch(learner.examples("train")[:1])
    with torch.no_grad():
        mentor, own = (m.hidden_states(batch)[-1] for m in (learner.models[MENTOR], learner))
    shape = mentor.shape[1], own.shape[1]
    if shape[0] == shape[1]:
        return None
    drawn = torch.randn(shape, generator=client.context.generator(PROJECTION)) / shape[1] ** 0.5
    return Parameter(client.memory.get(PROJECTION, drawn).clone().to(own.device))
