"""Algorithms against client drift, on parabolas whose optimum is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from algorithms.quadratic import Quadratic, optimum
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.feddyn import FedDyn
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.learners.training.settings import TrainingSettings
from toys import federate, same, silos

CLIENTS = {
    "flat": Quadratic(curve=(1.0, 3.0), centre=(1.0, -1.0)),
    "steep": Quadratic(curve=(8.0, 0.5), centre=(-1.0, 2.0)),
    "other": Quadratic(curve=(2.0, 6.0), centre=(0.5, 0.5)),
}
EQUAL = (1.0, 1.0, 1.0)


def ended(algorithm: Algorithm, folder: Path, rounds: int = 60, **more: object) -> Tensor:
    """Where a federation of the three ends."""
    clients = more.pop("clients", CLIENTS)
    outcome = federate(algorithm, clients, folder, CLIENTS["flat"], rounds=rounds, **more)  # type: ignore[arg-type]
    return outcome.server_state.algorithm_state["model"]["w"].double()


def test_fedavg_drifts_and_scaffold_does_not(tmp_path: Path) -> None:
    goal = optimum(CLIENTS, EQUAL)
    assert (ended(FedAvg(), tmp_path / "fedavg") - goal).norm() > 0.2
    assert (ended(Scaffold(), tmp_path / "scaffold") - goal).norm() < 1e-4


def test_scaffold_reaches_the_optimum_with_some_of_the_clients_a_round(tmp_path: Path) -> None:
    found = ended(Scaffold(), tmp_path / "run", rounds=200, fraction_train=0.67)
    assert (found - optimum(CLIENTS, EQUAL)).norm() < 1e-3


def test_feddyn_reaches_the_optimum(tmp_path: Path) -> None:
    found = ended(FedDyn(alpha=1.0), tmp_path / "run", rounds=200)
    assert (found - optimum(CLIENTS, EQUAL)).norm() < 1e-3


def test_scaffold_steps_as_the_paper_says(tmp_path: Path) -> None:
    """Two rounds by hand: option II of algorithm 1, every gradient written out."""
    outcome = federate(
        Scaffold(learning_rate=0.7), CLIENTS, tmp_path / "run", CLIENTS["flat"], rounds=2
    )
    x, c = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    own = {name: torch.zeros(2, dtype=torch.float64) for name in CLIENTS}
    for _ in range(2):
        ends, fresh = [], {}
        for name, client in CLIENTS.items():
            y = x.clone()
            for _ in range(client.steps):
                gradient = torch.tensor(client.curve) * (y - torch.tensor(client.centre))
                y = y - client.rate * (gradient - own[name] + c)
            fresh[name] = own[name] - c + (x - y) / (client.steps * client.rate)
            ends.append(y)
        c = c + sum(fresh[name] - own[name] for name in CLIENTS) / 3
        x, own = x + 0.7 * (sum(ends) / 3 - x), fresh
    state = outcome.server_state.algorithm_state
    torch.testing.assert_close(state["model"]["w"].double(), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(state["control"]["w"].double(), c, atol=1e-4, rtol=0)


def test_feddyn_steps_as_the_paper_says(tmp_path: Path) -> None:
    alpha = 0.5
    outcome = federate(FedDyn(alpha), CLIENTS, tmp_path / "run", CLIENTS["flat"], rounds=3)
    x, h = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    own = {name: torch.zeros(2, dtype=torch.float64) for name in CLIENTS}
    for _ in range(3):
        ends = []
        for name, client in CLIENTS.items():
            y = x.clone()
            for _ in range(client.steps):
                gradient = torch.tensor(client.curve) * (y - torch.tensor(client.centre))
                y = y - client.rate * (gradient - own[name] + alpha * (y - x))
            own[name] = own[name] - alpha * (y - x)
            ends.append(y)
        h = h - alpha / 3 * sum(y - x for y in ends)
        x = sum(ends) / 3 - h / alpha
    torch.testing.assert_close(
        outcome.server_state.algorithm_state["model"]["w"].double(), x, atol=1e-5, rtol=0
    )


def test_scaffold_begins_as_fedavg_with_equal_weights(tmp_path: Path) -> None:
    first = ended(Scaffold(), tmp_path / "scaffold", rounds=1)
    torch.testing.assert_close(first, ended(FedAvg(), tmp_path / "fedavg", rounds=1))


UNEQUAL = {
    name: replace(client, steps=steps, examples=examples)
    for (name, client), steps, examples in zip(CLIENTS.items(), (2, 9, 5), (4, 6, 10), strict=True)
}


def test_fednova_is_normalized_by_steps(tmp_path: Path) -> None:
    """One round by hand, with unequal steps and weights."""
    found = ended(FedNova(), tmp_path / "run", rounds=1, clients=UNEQUAL)
    shares = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    steps = torch.tensor([2.0, 9.0, 5.0], dtype=torch.float64)
    ends = []
    for client in UNEQUAL.values():
        y = torch.zeros(2, dtype=torch.float64)
        for _ in range(client.steps):
            y = y - client.rate * torch.tensor(client.curve) * (y - torch.tensor(client.centre))
        ends.append(y)
    expected = (shares * steps).sum() * sum(
        share * y / count for share, y, count in zip(shares, ends, steps, strict=True)
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_fednova_is_nearer_to_the_optimum_than_fedavg_where_steps_are_unequal(
    tmp_path: Path,
) -> None:
    slow = {name: replace(client, rate=0.002) for name, client in UNEQUAL.items()}
    goal = optimum(slow, (0.2, 0.3, 0.5))
    nova, average = (
        ended(algorithm, tmp_path / type(algorithm).__name__, rounds=600, clients=slow)
        for algorithm in (FedNova(), FedAvg())
    )
    assert (nova - goal).norm() < 0.2 * (average - goal).norm()


def test_fednova_with_equal_steps_is_fedavg(tmp_path: Path) -> None:
    three = TrainingSettings(
        learning_rate=0.05, per_device_train_batch_size=4, max_steps=4, optim="sgd"
    )
    nova = federate(FedNova(), silos(4, three), tmp_path / "nova").server_state.algorithm_state[
        "model"
    ]
    average = federate(
        FedAvg(), silos(4, three), tmp_path / "average"
    ).server_state.algorithm_state["model"]
    for name, tensor in average.items():
        torch.testing.assert_close(nova[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn()])
def test_lost_rounds_leave_the_clients_memory_as_it_was(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    """A round that was begun and not counted is done again, to the same end."""
    whole = federate(algorithm, silos(3), tmp_path / "whole", rounds=4).server_state
    federate(algorithm, silos(3), tmp_path / "stopped", rounds=4, stop_after=2)
    assert same(federate(algorithm, silos(3), tmp_path / "stopped", rounds=4).server_state, whole)
