"""DiLoCo against PyTorch's optimizer, against averaging, and against a loop over replicas."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.algorithms.diloco import DiLoCo
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction
from hanse.journal.run_folder import read_ledger
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, layout_bytes
from toy_learners import Toy
from toys import Meddler, federate, held_out, silos

INNER = TrainingSettings(
    learning_rate=0.05, per_device_train_batch_size=4, max_steps=3, optimizer_state="keep"
)
NAMES = ["inner", "inner bias", "weight", "bias"]


def networks(number: int, training: TrainingSettings = INNER) -> dict[str, Toy]:
    """Clients with a hidden layer: four tensors, each a layer of its own."""
    return {name: replace(toy, hidden=5) for name, toy in silos(number, training).items()}


def near(a: Tensors, b: Tensors, tolerance: float) -> bool:
    return all(float((a[name] - b[name]).abs().max()) <= tolerance for name in a | b)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_inner_step_and_plain_outer_steps_are_averaging(tmp_path: Path, optimizer: Any) -> None:
    toys = networks(3, replace(INNER, max_steps=1, optim=optimizer))
    plain = federate(FedAvg(), toys, tmp_path / "fedavg", held_out(hidden=5))
    outer = DiLoCo(learning_rate=1.0, momentum=0.0)
    stepped = federate(outer, toys, tmp_path / "diloco", held_out(hidden=5))
    models = [outcome.server_state.algorithm_state["model"] for outcome in (plain, stepped)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in NAMES)
    other = federate(DiLoCo(), toys, tmp_path / "nesterov", held_out(hidden=5))
    assert not near(other.server_state.algorithm_state["model"], models[0], 1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_outer_step_is_that_of_pytorch(momentum: float) -> None:
    learner, draw = held_out(hidden=5)(RoundContext(0), {}), torch.Generator().manual_seed(3)
    server, algorithm = Server(learner, 2, RoundContext(0)), DiLoCo(0.7, momentum)
    state = algorithm.init(server)
    live = {name: Parameter(tensor.clone()) for name, tensor in state["model"].items()}
    sgd = torch.optim.SGD(live.values(), lr=0.7, momentum=momentum, nesterov=momentum > 0)
    for _ in range(6):
        delta = {n: torch.randn(p.shape, generator=draw) for n, p in live.items()}
        for name, parameter in live.items():
            parameter.grad = -delta[name]
        sgd.step()
        state = algorithm.step(state, Aggregate(delta, {}, 1.0, ("a",)), server)
    assert near(state["model"], {name: p.detach() for name, p in live.items()}, 1e-5)


def streamed(toys: dict[str, Toy], rounds: int, rate: float, mu: float) -> dict[str, Tensor]:
    """Streaming in one loop: four replicas, and in each round one tensor of the model is theirs."""
    start = next(iter(toys.values()))(RoundContext(0), {}).tensors()
    server = {name: tensor.clone() for name, tensor in start.items()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    replicas = {client: {n: t.clone() for n, t in start.items()} for client in toys}
    optimizers: dict[str, Any] = {client: {} for client in toys}
    total = sum(len(toy.splits["train"]) for toy in toys.values())
    for number in range(1, rounds + 1):
        for client, toy in toys.items():
            learner = toy(RoundContext(0, number, client), optimizers[client])
            learner.load(replicas[client])
            learner.fit()
            replicas[client] = learner.tensors()
        due = sorted(start)[(number - 1) % 4]
        gradient = torch.zeros_like(start[due])
        for client, toy in toys.items():
            share = len(toy.splits["train"]) / total
            gradient += share * (server[due] - replicas[client][due])
        velocity[due] = mu * velocity[due] + gradient
        server[due] = server[due] - rate * (gradient + mu * velocity[due])
        for replica in replicas.values():
            replica[due] = server[due].clone()
    return server


def test_streaming_is_the_loop_over_replicas(tmp_path: Path) -> None:
    toys = networks(3)
    for rounds in (4, 9):
        outcome = federate(
            DiLoCo(fragments=4), toys, tmp_path / f"{rounds}", held_out(hidden=5), rounds=rounds
        )
        model = outcome.server_state.algorithm_state["model"]
        assert near(model, streamed(toys, rounds, 0.7, 0.9), 1e-5)
    whole = federate(DiLoCo(), toys, tmp_path / "whole", held_out(hidden=5), rounds=9)
    assert not near(model, whole.server_state.algorithm_state["model"], 1e-2)


def test_each_tensor_is_sent_once_in_as_many_rounds_as_fragments(tmp_path: Path) -> None:
    tensors = {f"model.layers.{i}.{kind}": torch.zeros(50, 40) for i in range(12) for kind in "ab"}
    algorithm, profile = DiLoCo(fragments=4), ClientProfile("a", 8)
    learner = held_out()(RoundContext(0), {})
    learner._live = {name: Parameter(tensor) for name, tensor in tensors.items()}
    state = algorithm.init(Server(learner, 2, RoundContext(0)))
    layouts = [algorithm.update_layout(state, profile, RoundContext(0, n)) for n in range(1, 9)]
    assert sorted(name for sent in layouts[:4] for name in sent) == sorted(tensors)
    assert [sent.keys() for sent in layouts[4:]] == [sent.keys() for sent in layouts[:4]]
    for sent in layouts:
        assert layout_bytes(sent) == layout_bytes(tensors) / 4
    assert [*layouts[1]] == [f"model.layers.{i}.{kind}" for i in (1, 5, 9) for kind in "ab"]


def test_rounds_take_their_share_of_the_bytes(tmp_path: Path) -> None:
    features = 600  # the rows of `inner` are nearly all of the model

    def rows(fragments: int) -> dict[int, tuple[int, int]]:
        folder = tmp_path / f"{fragments}"
        toys = {n: replace(toy, hidden=5) for n, toy in silos(2, INNER, features).items()}
        server = held_out(features=features, hidden=5)
        federate(DiLoCo(fragments=fragments), toys, folder, server, rounds=5)
        ledger = [row for row in read_ledger(folder) if row.client == "c0" and row.kind == "train"]
        return {row.round: (row.up, row.down) for row in ledger}

    whole, parts = rows(1), rows(4)
    inner = 4 * 5 * features
    # In alphabetical order: bias, inner, inner bias, weight.
    assert [parts[n][0] > inner for n in range(1, 6)] == [False, True, False, False, False]
    assert [parts[n][1] > inner for n in range(1, 6)] == [True, False, True, False, False]
    assert all(up > inner and down > inner for up, down in whole.values())
    assert sum(up for up, _ in parts.values()) < sum(up for up, _ in whole.values()) / 3


@dataclass(frozen=True)
class Noted(DiLoCo):
    """Notes the global model that its clients know."""

    known: dict[tuple[str, int], Tensors] = field(default_factory=dict)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        model = super().personalized(instruction, client)
        self.known[client.profile.name, client.context.round] = model
        return model


def test_a_client_that_missed_rounds_knows_the_global_model(tmp_path: Path) -> None:
    def network(inner: Any) -> Meddler:
        lost = {("c1", 2), ("c1", 3), ("c2", 1), ("c0", 5)}
        return Meddler(inner, lambda name, kind, number: (name, number) in lost)

    models, known = {}, {}
    for stop in range(8):
        algorithm = Noted(fragments=3, known=known)
        outcome = federate(
            algorithm,
            networks(3),
            tmp_path / "run",
            held_out(hidden=5),
            rounds=8,
            network=network,
            stop_after=stop,
        )
        models[stop + 1] = outcome.server_state.algorithm_state["model"]
    assert len(known) == 3 * 7 - 4
    for (_, number), model in known.items():
        assert same_tensors(model, models[number])


def same_tensors(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_more_fragments_than_layers_are_refused() -> None:
    server = Server(held_out(hidden=5)(RoundContext(0), {}), 2, RoundContext(0))
    DiLoCo(fragments=4).init(server)
    with pytest.raises(
        UserError, match=r"came as 5, .* in 4 layers only; set fragments to at most"
    ):
        DiLoCo(fragments=5).init(server)
