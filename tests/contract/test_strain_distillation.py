"""Strain test: distillation between unequal models, with training on the server.

Clients with models of different sizes learn from their own points and from what the server's
model says of public ones; only logits on the public points cross the network.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from hanse.evaluation.perplexity import Perplexity
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, layout
from toys import Meddler, Toy, federate, held_out, same, silos

TRAINING = TrainingSettings(
    learning_rate=0.03, per_device_train_batch_size=8, max_steps=25, max_grad_norm=0
)
WIDTHS = {"c0": 4, "c1": 7, "c2": 0, "c3": 9}
SERVER_WIDTH = 12
ROUNDS = 4


@dataclass(frozen=True)
class Imitate(Objective):
    """The cross-entropy between a teacher's logits and the learner's, on public examples."""

    public: Any
    teacher: Tensor  # (public examples, classes)

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        said = learner.forward(self.public).log_softmax(dim=1)
        return -(self.teacher.softmax(dim=1) * said).sum(dim=1).mean()


@dataclass(frozen=True)
class Distillation(Algorithm):
    """Clients send logits on public examples; the server's model learns their mean."""

    payload = "logits"

    def init(self, server: Server) -> State:
        logits = {"public": public_logits(server.learner)}
        return {"model": server.learner.tensors(), "logits": logits, "taught": {"": torch.zeros(1)}}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(state["logits"], {"taught": float(state["taught"][""])})

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(state["logits"])

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner = client.learner
        learner.load(self.personalized(instruction, client))
        fit = learner.fit()
        if instruction.numbers["taught"]:  # before that the server's model knows nothing
            public = learner.batch(learner.examples("public"))
            learner.fit(objective=Imitate(public, instruction.tensors["public"]))
        client.memory.update(learner.tensors())
        return Update({"public": public_logits(learner)}, fit.numbers(), weight=fit.examples)

    def max_weight(self, profile: ClientProfile) -> float:
        return 1e12  # the examples that it has seen, more than once

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return dict(client.memory) or client.learner.tensors()

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        learner = server.learner
        learner.load(state["model"])
        public = learner.batch(learner.examples("public"))
        learner.fit(objective=Imitate(public, combined.tensors["public"]))
        logits = {"public": public_logits(learner)}
        return {"model": learner.tensors(), "logits": logits, "taught": {"": torch.ones(1)}}


def public_logits(learner: Learner) -> Tensor:
    """(public examples, classes) logits of the learner as it stands."""
    with torch.no_grad():
        return learner.forward(learner.batch(learner.examples("public")))


def clients() -> dict[str, Toy]:
    """Four clients, each with a model of its own size."""
    return {name: replace(toy, hidden=WIDTHS[name]) for name, toy in silos(4, TRAINING).items()}


def alone(toy: Toy) -> float:
    """The held-out loss of a client that trains as often, by itself."""
    learner = toy(RoundContext(0), {})
    for number in range(1, ROUNDS + 1):
        start = learner.tensors()
        learner = toy(RoundContext(0, number, "alone"), {})
        learner.load(start)
        learner.fit()
    judged = held_out(hidden=toy.hidden)(RoundContext(0), {})
    judged.load(learner.tensors())
    return Perplexity().evaluate(judged, "test").metrics["loss"]


def test_server_learns_from_logits_alone(tmp_path: Path) -> None:
    server = held_out(TRAINING, hidden=SERVER_WIDTH)
    outcome = federate(Distillation(), clients(), tmp_path / "run", server, rounds=ROUNDS)
    start, end = (outcome.records[at].test["loss"] for at in (0, -1))
    assert end < 0.5 * start
    assert end < min(alone(toy) for toy in clients().values())


def test_clients_keep_and_are_judged_by_their_own_models(tmp_path: Path) -> None:
    server = held_out(TRAINING, hidden=SERVER_WIDTH)
    outcome = federate(Distillation(), clients(), tmp_path / "run", server, rounds=ROUNDS)
    scored = outcome.records[-1].client_test
    assert set(scored) == set(WIDTHS)
    for name, toy in clients().items():
        untrained = Perplexity().evaluate(toy(RoundContext(0), {}), "test").metrics["loss"]
        assert scored[name]["loss"] < untrained


def test_no_parameter_crosses_the_network(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    server = held_out(TRAINING, hidden=SERVER_WIDTH)
    federate(Distillation(), clients(), tmp_path / "run", server, rounds=2, network=tapped)
    models = [toy(RoundContext(0), {}).tensors() for toy in clients().values()] + [
        server(RoundContext(0), {}).tensors()
    ]
    names = {name for model in models for name in model}
    shapes = {tensor.shape for model in models for tensor in model.values()}
    seen = 0
    for message in taps[0].requests + taps[0].replies:
        for key, tensor in safetensors.torch.load(message).items():
            if key != "#":  # the message's plain numbers
                seen += 1
                assert key.partition("/")[2] not in names
                assert tensor.shape not in shapes
    assert seen == 2 * 4 * 2 + 4  # down and up, four clients, two rounds; then one order to judge


def test_resume_equals_no_stop(tmp_path: Path) -> None:
    def go(folder: str, stop: int | None = None) -> Any:
        server = held_out(TRAINING, hidden=SERVER_WIDTH)
        path = tmp_path / folder
        return federate(
            Distillation(), clients(), path, server, rounds=3, stop_after=stop
        ).server_state

    go("stopped", 1)
    assert same(go("stopped"), go("whole"))
