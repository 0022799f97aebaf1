"""FedCoLLM's two identities bit for bit, its step on public rows by hand, and what it sends."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedcollm import FedCoLLM
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Aggregate, State
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from toy_learners import Toy, points
from toys import Meddler, Outcome, federate, held_out, silos

WIDTH, RATE, ROWS = 5, 0.5, 30
STEP = TrainingSettings(
    learning_rate=RATE, optim="sgd", max_grad_norm=0, per_device_train_batch_size=ROWS
)


@dataclass(frozen=True)
class Followed(FedAvg):
    """FedAvg, and after each round some steps of cross-entropy on public rows."""

    needs: ClassVar[frozenset[str]] = frozenset()
    steps: int = 3

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        after = super().step(state, combined, server)
        server.learner.load(after["model"])
        server.learner.fit(split="public", steps=self.steps)
        return {**after, "model": server.learner.tensors()}


def go(folder: Path, algorithm: Algorithm, taps: list[Meddler] | None = None) -> Outcome:
    def tapped(inner: Any) -> Any:
        if taps is None:
            return inner
        taps.append(Meddler(inner))
        return taps[-1]

    server = held_out(models={"large": WIDTH})
    return federate(algorithm, silos(3), folder, server, network=tapped)


def equal(one: Outcome, other: Outcome) -> bool:
    models = [out.server_state.algorithm_state["model"] for out in (one, other)]
    return all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_without_public_steps_it_is_fedavg(tmp_path: Path) -> None:
    ours = go(tmp_path / "ours", FedCoLLM(public_steps=0))
    plain = go(tmp_path / "plain", FedAvg())
    assert equal(ours, plain)
    small = {n: v for n, v in ours.records[-1].test.items() if not n.startswith("large.")}
    assert small == plain.records[-1].test
    assert not equal(go(tmp_path / "steps", FedCoLLM(public_steps=1)), plain)


def test_without_distillation_cross_entropy_on_public_rows_follows_fedavg(tmp_path: Path) -> None:
    ours = go(tmp_path / "ours", FedCoLLM(strength=0, public_steps=3))
    assert equal(ours, go(tmp_path / "followed", Followed()))
    joined = go(tmp_path / "joined", FedCoLLM(strength=1, public_steps=3))
    assert not equal(ours, joined)


@dataclass(frozen=True)
class Nothing(Objective):
    """A loss by which no model learns."""

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return 0 * learner.forward(batch).sum()


def test_without_distillation_public_rows_are_learned_by_cross_entropy_whatever_the_objective(
    tmp_path: Path,
) -> None:
    algorithm = FedCoLLM(strength=0, public_steps=3)
    server = held_out(models={"large": WIDTH})
    ends = []
    for name, objective in (("own", Nothing()), ("plain", server.objective)):
        clients = {n: replace(toy, objective=Nothing()) for n, toy in silos(3).items()}
        own = replace(server, objective=objective)
        ends.append(federate(algorithm, clients, tmp_path / name, own))
    assert equal(*ends)


def served(algorithm: FedCoLLM, rate: float = RATE) -> tuple[Server, State]:
    """A server, and its state before the first round."""
    training = replace(STEP, learning_rate=rate)
    toy = Toy({"public": points(1000, ROWS)}, training, models={"large": WIDTH})
    server = Server(toy(RoundContext(0, 1), {}), 2, RoundContext(0, 1))
    return server, algorithm.init(server)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_on_public_rows_follows_each_models_own_loss(reverse: bool) -> None:
    strength, t = 2.0, 1.5
    algorithm = FedCoLLM(strength, t, reverse, public_steps=1)
    server, state = served(algorithm)
    draw = torch.Generator().manual_seed(1)
    change = {n: torch.randn(v.shape, generator=draw) for n, v in state["model"].items()}
    after = algorithm.step(state, Aggregate(change, {}, 1.0, ("c0",)), server)
    small = {n: (v + change[n]).double().requires_grad_() for n, v in state["model"].items()}
    large = {n: v.double().requires_grad_() for n, v in state["large"].items()}
    x = torch.tensor([point.x for point in points(1000, ROWS)], dtype=torch.float64)
    y = torch.tensor([point.y for point in points(1000, ROWS)])
    hidden = torch.tanh(x @ large["inner"].T + large["inner bias"])
    logits = x @ small["weight"].T + small["bias"], hidden @ large["weight"].T + large["bias"]
    for own, other, tensors, name in ((0, 1, small, "model"), (1, 0, large, "large")):
        log = logits[own].log_softmax(1)
        q, p = (logits[own] / t).softmax(1), (logits[other] / t).softmax(1).detach()
        kl = (q * (q / p).log() if reverse else p * (p / q).log()).sum(1).mean()
        loss = -log[torch.arange(ROWS), y].mean() + strength * t * t * kl
        slopes = torch.autograd.grad(loss, [*tensors.values()], retain_graph=True)
        for (key, start), slope in zip(tensors.items(), slopes, strict=True):
            end = (start - RATE * slope).detach()
            torch.testing.assert_close(after[name][key].double(), end, atol=1e-5, rtol=1e-5)


def losses(tensors: Any, hidden: int) -> float:
    """The loss on rows that are neither public nor a client's."""
    toy = held_out(hidden=hidden)(RoundContext(0), {})
    toy.load(tensors)
    batch = toy.batch(toy.examples("test"))
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(toy.forward(batch), batch.targets))


def test_both_models_learn(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", FedCoLLM(public_steps=20))
    _, start = served(FedCoLLM())
    end = outcome.server_state.algorithm_state
    assert losses(end["model"], 0) < 0.7 * losses(start["model"], 0)
    assert losses(end["large"], WIDTH) < 0.7 * losses(start["large"], WIDTH)


def test_the_small_model_begins_with_what_the_large_one_says() -> None:
    _, plain = served(FedCoLLM())
    server, taught = served(FedCoLLM(initial_steps=20))
    assert losses(taught["model"], 0) < 0.8 * losses(plain["model"], 0)
    assert all(torch.equal(t, plain["large"][name]) for name, t in taught["large"].items())
    server.learner.models["large"].load(plain["large"])
    _, closer = served(FedCoLLM(strength=10, initial_steps=300), 0.02)
    assert distance(closer, server) < 0.5 * distance(plain, server)


def distance(state: State, server: Server) -> float:
    """The mean square of the differences of both models' probabilities of public rows."""
    server.learner.load(state["model"])
    batch = server.learner.batch(server.learner.examples("public"))
    with torch.no_grad():
        small = server.learner.forward(batch).softmax(1)
        return float(
            (small - server.learner.models["large"].forward(batch).softmax(1)).square().mean()
        )


def test_no_tensor_of_the_large_model_is_sent(tmp_path: Path) -> None:
    taps: list[Meddler] = []
    outcome = go(tmp_path / "run", FedCoLLM(public_steps=2), taps)
    messages = [safetensors.torch.load(m) for m in (*taps[0].requests, *taps[0].replies)]
    sent = {digest(t) for message in messages for t in message.values()}
    large = outcome.server_state.algorithm_state["large"]
    assert len(sent) > 10 and not sent & {digest(t) for t in large.values()}
    names = {name.rpartition("/")[2] for message in messages for name in message}
    assert names == {"#", "weight", "bias"}


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
