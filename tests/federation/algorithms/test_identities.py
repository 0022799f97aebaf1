"""Algorithms that must equal one another, and algorithms that must equal their formulas."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedopt import FedOpt
from hanse.federation.algorithms.fedprox import FedProx
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction
from hanse.journal.yaml_text import dump
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.registry import build
from hanse.tensors.named import Tensors
from toy_learners import Batch
from toys import federate, held_out, same, silos

ADAMW = TrainingSettings(learning_rate=0.05, per_device_train_batch_size=4, optimizer_state="keep")
Array = np.ndarray


def near(a: Tensors, b: Tensors, tolerance: float) -> bool:
    """Whether two groups of tensors agree."""
    assert a.keys() == b.keys()
    return all(float((t - b[name]).abs().max()) <= tolerance for name, t in a.items())


def test_fedprox_without_mu_is_fedavg(tmp_path: Path) -> None:
    plain = federate(FedAvg(), silos(4, ADAMW), tmp_path / "fedavg").server_state
    assert same(federate(FedProx(mu=0), silos(4, ADAMW), tmp_path / "zero").server_state, plain)
    assert not same(federate(FedProx(mu=1), silos(4, ADAMW), tmp_path / "one").server_state, plain)


def test_fedopt_with_plain_steps_is_fedavg(tmp_path: Path) -> None:
    algorithm = FedOpt(optimizer="momentum", beta_1=0, learning_rate=1)
    stepped = federate(algorithm, silos(4), tmp_path / "fedopt").server_state.algorithm_state[
        "model"
    ]
    plain = federate(FedAvg(), silos(4), tmp_path / "fedavg").server_state.algorithm_state["model"]
    assert near(stepped, plain, 1e-7)


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_one_client_is_plain_training(tmp_path: Path, state: str) -> None:
    training = replace(ADAMW, optimizer_state=state, lr_scheduler_type="cosine", warmup_ratio=0.1)
    [(name, toy)] = silos(1, training).items()
    federated = federate(FedAvg(), {name: toy}, tmp_path / "run", seed=7, rounds=3)
    kept: dict[str, Tensor] = {}
    model = toy(RoundContext(7), {}).tensors()
    for number in (1, 2, 3):
        learner = toy(RoundContext(7, number, name), kept)
        learner.load(model)
        learner.fit()
        model = learner.tensors()
    assert near(federated.server_state.algorithm_state["model"], model, 1e-6)


def test_a_kept_optimizer_does_not_notice_the_rounds(tmp_path: Path) -> None:
    every = replace(ADAMW, per_device_train_batch_size=8, max_steps=2)  # all examples, each step
    [(name, toy)] = silos(1, every).items()
    assert len(toy.splits["train"]) == 8
    learner = replace(toy, training=replace(every, max_steps=6))(RoundContext(0, 1, name), {})
    learner.fit()
    for state, alike in (("keep", True), ("reset", False)):
        training = replace(every, optimizer_state=state)
        client = {name: replace(toy, training=training)}
        rounds = federate(FedAvg(), client, tmp_path / state).server_state.algorithm_state["model"]
        assert near(rounds, learner.tensors(), 1e-5) == alike


def test_mean_is_weighted_by_examples(tmp_path: Path) -> None:
    toys = silos(3)
    everyone = federate(FedAvg(), toys, tmp_path / "all", rounds=1).server_state.algorithm_state[
        "model"
    ]
    total = sum(len(toy.splits["train"]) for toy in toys.values())
    expected = {name: torch.zeros_like(t) for name, t in everyone.items()}
    for name, toy in toys.items():
        learner = toy(RoundContext(0, 1, name), {})  # from zero, so that the change is the result
        learner.fit()
        for at, tensor in learner.tensors().items():
            expected[at] += len(toy.splits["train"]) / total * tensor
    assert near(everyone, expected, 1e-6)
    assert len({len(toy.splits["train"]) for toy in toys.values()}) == 3  # no plain mean


# ---- the server's optimizers, against their formulas in float64


def adam(v: Array, d: Array) -> Array:
    return 0.8 * v + (1 - 0.8) * d**2


def yogi(v: Array, d: Array) -> Array:
    return v - (1 - 0.8) * d**2 * np.sign(v - d**2)


def adagrad(v: Array, d: Array) -> Array:
    return v + d**2


def double_server() -> Server:
    """A server whose model is in float64, and not all zeros."""
    learner = held_out()(RoundContext(0), {})
    draw = torch.Generator().manual_seed(3)
    learner._live = {
        name: Parameter(torch.randn(p.shape, generator=draw, dtype=torch.float64))
        for name, p in learner.parameters().items()
    }
    return Server(learner, 4, RoundContext(0))


def deltas(server: Server, steps: int) -> list[dict[str, Tensor]]:
    """One mean change for each step, small and large values mixed."""
    draw = torch.Generator().manual_seed(4)
    like = server.learner.tensors()
    return [
        {
            n: torch.randn(t.shape, generator=draw, dtype=t.dtype) * 10.0 ** (step % 3 - 2)
            for n, t in like.items()
        }
        for step in range(steps)
    ]


def stepped(algorithm: FedOpt, server: Server, changes: list[dict[str, Tensor]]) -> Tensors:
    """The model after a step along each of the mean changes."""
    state = algorithm.init(server)
    for change in changes:
        state = algorithm.step(state, Aggregate(change, {}, 1.0, ("c0",)), server)
    return algorithm.model(state)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("second_moment", [adam, yogi, adagrad])
def test_adaptive_steps(second_moment: Callable[[Array, Array], Array], steps: int) -> None:
    eta, beta, tau = 0.3, 0.7, 0.01
    settings = {"learning_rate": eta, "beta_1": beta, "tau": tau}
    if second_moment is not adagrad:
        settings["beta_2"] = 0.8
    algorithm = FedOpt(optimizer=second_moment.__name__, **settings)  # type: ignore[arg-type]
    server = double_server()
    changes = deltas(server, steps)
    found = stepped(algorithm, server, changes)
    for name, start in server.learner.tensors().items():
        x, m, v = start.numpy(), np.zeros(start.shape), np.full(start.shape, tau**2)
        for change in changes:
            d = change[name].numpy()
            m = beta * m + (1 - beta) * d
            v = second_moment(v, d)
            x = x + eta * m / (np.sqrt(v) + tau)
        np.testing.assert_allclose(found[name].numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_momentum_steps(steps: int) -> None:
    eta, beta = 0.6, 0.7
    server = double_server()
    changes = deltas(server, steps)
    algorithm = FedOpt(optimizer="momentum", learning_rate=eta, beta_1=beta)
    found = stepped(algorithm, server, changes)
    for name, start in server.learner.tensors().items():
        x, v = start.numpy(), np.zeros(start.shape)
        for change in changes:
            v = beta * v + change[name].numpy()
            x = x + eta * v
        np.testing.assert_allclose(found[name].numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "beta_2", "tau"),
    [
        ("adam", 1e-3, 0.99, 1e-3),
        ("yogi", 1e-3, 0.99, 1e-3),
        ("adagrad", 1e-3, None, 1e-3),
        ("momentum", 1.0, None, None),
    ],
)
def test_the_servers_optimizer_decides_the_defaults(
    optimizer: str, learning_rate: float, beta_2: float | None, tau: float | None, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(f"algorithm: {{fedopt: {{optimizer: {optimizer}}}}}\n")
    written = load(tmp_path / "x.yaml").resolved()
    own = {"learning_rate": learning_rate, "beta_1": 0.9, "beta_2": beta_2, "tau": tau}
    assert written["algorithm"] == {"fedopt": {"optimizer": optimizer, **own}}
    (tmp_path / "again.yaml").write_text(dump(written))
    assert load(tmp_path / "again.yaml").resolved()["algorithm"] == written["algorithm"]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "momentum", "tau": 0.1},
        {"optimizer": "momentum", "beta_2": 0.9},
        {"optimizer": "adagrad", "beta_2": 0.9},
    ],
)
def test_a_setting_that_the_servers_optimizer_does_not_use_is_refused(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(UserError, match=f"the optimizer {settings['optimizer']} has none; leave"):
        build("federation/algorithms", {"fedopt": settings})


# ---- FedProx's gradient


@dataclass(frozen=True)
class Quadratic(Objective):
    """½‖w - target‖², whose gradient is w - target."""

    target: float

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        live = learner.parameters().values()
        return sum(((p - self.target) ** 2).sum() / 2 for p in live)  # type: ignore[return-value]


def test_fedprox_pulls_towards_the_global_model() -> None:
    rate, mu, target, start = 0.1, 0.5, 3.0, 1.0
    training = TrainingSettings(learning_rate=rate, optim="sgd", max_steps=3, max_grad_norm=0)
    toy = replace(silos(1)["c0"], training=training, objective=Quadratic(target))
    context, profile = RoundContext(0, 1, "c0"), ClientProfile("c0", 8)
    learner = toy(context, {})
    x = {name: torch.full_like(t, start) for name, t in learner.tensors().items()}
    update = FedProx(mu=mu).train(Instruction(x), Client(profile, learner, {}, {}, context))
    w = start  # the first step feels no pull, since w = x; the others do
    for _ in range(3):
        w = w - rate * ((w - target) + mu * (w - start))
    for tensor in update.tensors.values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, w - start))
