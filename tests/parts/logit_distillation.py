"""Unequal models learn from each other by their logits on public rows; no parameter travels.

A toy of what distillation asks of the roles: clients with models of their own, public rows at both
sides, training on the server, and logits as the payload of both ways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.declarations import UPDATES, Difference
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from hanse.tensors.named import Layout, Tensors, layout

PUBLIC = "public"


@dataclass(frozen=True)
class Imitate(Objective):
    """KL(teacher ‖ learner) on all public rows, with the classes left out as one class."""

    teacher: Tensors

    def rollout(self, learner: Learner, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        return learner.examples(PUBLIC)

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        student = top_k.of_classes(learner.scores(batch), self.teacher[top_k.INDICES])
        q = top_k.log_probabilities(student)
        p = top_k.log_probabilities(self.teacher).to(q.device)
        return (p.exp() * (p - q)).sum(dim=1).mean()


@dataclass(frozen=True)
class LogitDistillation(Algorithm):
    """The server's model learns the mean of the clients' k largest logits, and they learn it, too.

    In a round a client learns the last mean, then trains on its own rows and sends its logits.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payload: ClassVar[str] = "logits"
    instruction_payload: ClassVar[str] = "logits"
    clients_may_differ: ClassVar[Difference] = "model"
    needs_public: ClassVar[tuple[str, ...]] = ("server", "clients")

    k: int = 2

    def init(self, server: Server) -> State:
        """Its own untrained logits show the server the layout of all others."""
        model, scores = server.learner.tensors(), public_scores(server.learner)
        classes = torch.tensor(scores.shape[1])
        return {"model": model, "logits": top_k.top_k(scores, self.k), "classes": {"": classes}}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(state["logits"] if context.round > 1 else {})

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(state["logits"])

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        top_k.check(update.tensors, int(state["classes"][""]))

    def measured(self, tensors: Tensors) -> Mapping[str, Tensors]:
        return {"norm of logits": {"": tensors[top_k.VALUES]}}

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner = client.learner
        learner.load(self.personalized(instruction, client))
        if instruction.tensors:
            learner.fit(objective=Imitate(instruction.tensors), split=PUBLIC)
        result = learner.fit()
        client.memory.update(learner.tensors())
        logits = top_k.top_k(public_scores(learner), self.k)
        return Update(logits, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return dict(client.memory) or client.learner.initial()

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = top_k.mean([(update.weight, update.tensors) for _, update in updates])
        weight = sum(update.weight for _, update in updates)
        return Aggregate(mean, {}, weight, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        learner = server.learner
        learner.load(state["model"])
        learner.fit(objective=Imitate(combined.tensors), split=PUBLIC)
        return {**state, "model": learner.tensors(), "logits": combined.tensors}


def public_scores(learner: Learner) -> Tensor:
    """The learner's scores of the labels of all public rows: (rows, labels)."""
    with torch.no_grad():
        return learner.scores(learner.batch(learner.examples(PUBLIC))).cpu()
