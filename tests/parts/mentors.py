"""FedAvg beside a mentor: a model that trains where it is, and of which nothing is sent."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update
from hanse.learners.objectives.classify import Classify


@dataclass(frozen=True)
class Mentored(FedAvg):
    """Each client trains a mentor of its own on its rows, and keeps it; FedAvg for the rest.

    Clients report the mentor's loss. A client's next round goes on from its mentor.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    client_models: ClassVar[tuple[str, ...]] = ("mentor",)

    def train(self, instruction: Instruction, client: Client) -> Update:
        mentor = client.learner.models["mentor"]
        mentor.load(client.memory or mentor.initial())
        result = mentor.fit()
        client.memory.update(mentor.tensors())
        update = super().train(instruction, client)
        return replace(update, numbers={**update.numbers, "mentor_loss": result.loss})


@dataclass(frozen=True)
class MentoredServer(FedAvg):
    """The server trains a mentor on public rows; its tensors are a part of the server's state."""

    needs: ClassVar[frozenset[str]] = frozenset()
    server_models: ClassVar[tuple[str, ...]] = ("mentor",)
    needs_public: ClassVar[tuple[str, ...]] = ("server",)

    def init(self, server: Server) -> State:
        mentor = server.learner.models["mentor"]
        return {**super().init(server), "mentor": mentor.initial()}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        mentor = server.learner.models["mentor"]
        mentor.load(state["mentor"])
        mentor.fit(split="public")
        return {**super().step(state, combined, server), "mentor": mentor.tensors()}


@dataclass(frozen=True)
class Taught(Classify):
    """Classification, and the divergence from what a mentor says of the same examples.

    The mentor itself, if it is trained, learns to classify alone.
    """

    models: ClassVar[tuple[str, ...]] = ("mentor",)

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        if (mentor := learner.models.get("mentor")) is None:
            return super().loss(learner, batch)
        with torch.no_grad():
            taught = mentor.scores(batch).log_softmax(dim=-1)
        own = learner.scores(batch).log_softmax(dim=-1)
        divergence = kl_div(own, taught, log_target=True, reduction="batchmean")
        return super().loss(learner, batch) + divergence
