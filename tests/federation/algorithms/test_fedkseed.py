"""FedKSeed: a few bytes whatever the model's size, and sums that stand for the clients' weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms import fedkseed
from hanse.federation.algorithms.fedkseed import FedKSeed, probabilities
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request, Update
from hanse.randomness import RoundContext
from hanse.tensors import directions
from hanse.tensors.philox import normals
from hanse.tensors.serialization import MessageError
from toy_learners import QUICK
from toys import Meddler, federate, held_out, silos

START = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.25], dtype=torch.float64)
CENTRE = torch.tensor([0.5, 0.5, -1.0, 2.0, 0.0, 1.0], dtype=torch.float64)


@dataclass
class Quadratic(WholeModel):
    """½‖w − centre‖² in float64, as both a whole model and the learner that has it.

    losses: replace the true ones, in turn.
    """

    centre: Tensor = field(default_factory=lambda: CENTRE)
    steps: int = 50
    learning_rate: float = 0.02
    losses: list[float] = field(default_factory=list)
    w: Tensor = field(default_factory=START.clone)

    @property
    def whole_model(self) -> WholeModel:
        return self

    def weights(self) -> Mapping[str, Tensor]:
        return {"w": self.w}

    def restore(self) -> None:
        self.w.copy_(START)

    def round_batches(self) -> Iterator[Sequence[Any]]:
        return iter([[SimpleNamespace(examples=1, tokens=3)]] * self.steps)

    def loss(self, batches: Sequence[Any]) -> float:
        if self.losses:
            return self.losses.pop(0)
        return float((self.w - self.centre).square().sum() / 2)


def client(learner: Any, name: str = "c0", examples: int = 8, round: int = 1) -> Client:
    return Client(ClientProfile(name, examples), learner, {}, {}, RoundContext(0, round, name))


def server(learner: Any) -> Server:
    return Server(learner, 2, RoundContext(0))


def instruction(algorithm: FedKSeed, state: Any, round: int = 1) -> Instruction:
    return algorithm.instruction(state, ClientProfile("c0", 8), RoundContext(0, round))


@pytest.mark.parametrize("hidden", [0, 300])
@pytest.mark.parametrize(("seeds", "pro", "payload"), [(4096, False, 17_988), (1024, True, 9_796)])
def test_bytes_are_those_of_the_formula_whatever_the_size_of_the_model(
    hidden: int, seeds: int, pro: bool, payload: int, tmp_path: Path
) -> None:
    training = replace(QUICK, max_steps=200, per_device_train_batch_size=1)
    toys = {
        name: replace(toy, hidden=hidden)
        for name, toy in silos(1, training, run=1, whole=True).items()
    }
    network: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        network.append(Meddler(inner))
        return network[0]

    algorithm = FedKSeed(seeds=seeds, pro=pro)
    toy = held_out(training, hidden=hidden, whole=True)
    federate(algorithm, toys, tmp_path / "run", toy, rounds=1, network=tapped)
    requests = [m for m in network[0].requests if Request.parse(m).kind == "train"]
    replies = [m for m in network[0].replies if Reply.parse(m).kind == "train"]
    [request], [reply] = requests, replies
    tensors = Request.parse(request).instruction.tensors, Reply.parse(reply).update.tensors
    down, up = (sum(tensor.nbytes for tensor in group.values()) for group in tensors)
    assert down + up == payload == 4 + 4 * seeds * (2 if pro else 1) + 8 * 200
    assert len(request) <= down + 1024
    assert len(reply) <= up + 1024


def test_sums_replay_what_a_client_has_trained() -> None:
    algorithm, learner = FedKSeed(seeds=16), Quadratic()
    state = algorithm.init(server(learner))
    for round in (1, 2, 3):
        update = algorithm.train(instruction(algorithm, state, round), client(learner, round=round))
        trained = learner.w.clone()
        combined = algorithm.combine([(ClientProfile("c0", 8), update)])
        state = algorithm.step(state, combined, server(learner))
        learner.restore()
        sums = -learner.learning_rate * state["sums"]["gradients"]
        seed = int(state["model"]["seed"])
        directions.add(learner.weights(), seed, directions.nonzero(sums))
        # From the second round on a client has begun with amounts of four bytes.
        near = 1e-12 if round == 1 else 1e-6
        assert float((learner.w - trained).abs().max()) <= near
    assert learner.loss([]) < 0.2 * Quadratic().loss([])


def test_adding_by_seed_is_the_weighted_mean_of_the_clients_weights() -> None:
    algorithm = FedKSeed(seeds=16)
    learners = {"c0": Quadratic(), "c1": Quadratic(-CENTRE)}
    state = algorithm.init(server(learners["c0"]))
    updates = []
    for (name, learner), examples in zip(learners.items(), (30, 10), strict=True):
        part = client(learner, name, examples)
        updates.append((part.profile, algorithm.train(instruction(algorithm, state), part)))
    mean = (30 * learners["c0"].w + 10 * learners["c1"].w) / 40
    after = algorithm.step(state, algorithm.combine(updates), server(learners["c0"]))
    learner = learners["c0"]
    learner.restore()
    amounts = directions.nonzero(-learner.learning_rate * after["sums"]["gradients"])
    directions.add(learner.weights(), int(after["model"]["seed"]), amounts)
    assert float((learner.w - mean).abs().max()) <= 1e-12
    assert float((mean - START).abs().max()) > 0.1


def test_the_gradient_points_along_the_true_one_on_average() -> None:
    algorithm, learner = FedKSeed(seeds=60_000), Quadratic(learning_rate=0.0, steps=900)
    state = algorithm.init(server(learner))
    update = algorithm.train(instruction(algorithm, state), client(learner))
    seed, total = int(state["model"]["seed"]), torch.zeros_like(START)
    pairs = zip(*(update.tensors[name].tolist() for name in ("seeds", "gradients")), strict=True)
    for index, gradient in pairs:
        total += gradient * normals((seed, index), 0, len(START), START.device)
    assert float(torch.cosine_similarity(total, START - CENTRE, dim=0)) > 0.98
    torch.testing.assert_close(total / 900, START - CENTRE, atol=0.4, rtol=0.1)


def test_a_step_without_a_finite_loss_is_left_out() -> None:
    algorithm = FedKSeed(seeds=8)
    learner = Quadratic(steps=3, losses=[1.0, math.nan, math.inf, 1.0, 2.0, 1.0])
    state = algorithm.init(server(learner))
    update = algorithm.train(instruction(algorithm, state), client(learner))
    assert update.tensors["seeds"].tolist()[:2] == [fedkseed.NO_STEP] * 2
    assert update.tensors["seeds"].tolist()[2] >= 0
    assert update.tensors["gradients"].tolist() == [0.0, 0.0, 1000.0]
    assert (update.numbers["steps"], update.numbers["loss"]) == (1.0, 1.5)
    combined = algorithm.combine([(ClientProfile("c0", 8), update)])
    assert float(combined.tensors["gradients"].sum()) == 1000.0
    assert float(combined.tensors["counts"].sum()) == 1.0


def test_a_client_without_a_finite_loss_names_the_learning_rate() -> None:
    algorithm = FedKSeed(seeds=8)
    learner = Quadratic(steps=2, losses=[1.0, math.nan, math.inf, 1.0])
    state = algorithm.init(server(learner))
    with pytest.raises(UserError, match=r"none of the 2 steps .* lower train\.learning_rate"):
        algorithm.train(instruction(algorithm, state), client(learner))


def test_differences_of_losses_are_clipped() -> None:
    algorithm = FedKSeed(seeds=8, clip=0.1)
    learner = Quadratic(steps=3, losses=[1.0, 2.0, 2.0, 1.0, 1.05, 1.0])
    state = algorithm.init(server(learner))
    update = algorithm.train(instruction(algorithm, state), client(learner))
    expected = torch.tensor([-100.0, 100.0, 50.0])
    torch.testing.assert_close(update.tensors["gradients"], expected)


def test_pro_draws_seeds_by_their_mean_magnitude() -> None:
    algorithm = FedKSeed(seeds=4, pro=True)
    state = algorithm.init(server(Quadratic(steps=5)))
    even = instruction(algorithm, state).tensors["probabilities"]
    torch.testing.assert_close(even, torch.full((4,), 0.25))
    update = Update(
        {
            "seeds": torch.tensor([1, 1, 2, 3, -1], dtype=torch.int32),
            "gradients": torch.tensor([3.0, -3.0, -5000.0, 0.5, 0.0]),
        },
        weight=8,
    )
    combined = algorithm.combine([(ClientProfile("c0", 8), update)])
    after = algorithm.step(state, combined, server(Quadratic()))
    chances = instruction(algorithm, after).tensors["probabilities"]
    mean = torch.tensor([0.0, 6 / 3, 1000 / 2, 0.5 / 2])  # each history begins with one 0
    torch.testing.assert_close(chances, (mean / 500).softmax(0))
    assert abs(float(chances.sum()) - 1) < 1e-6
    assert chances.argsort().tolist() == mean.argsort().tolist()
    assert float(chances.max() / chances.min()) <= math.e + 1e-5
    assert float(after["sums"]["gradients"][2]) == -5000.0  # only the history is bounded


def test_equal_histories_give_equal_chances() -> None:
    chances = probabilities(torch.full((5,), 7.0).double(), torch.full((5,), 2.0).double())
    torch.testing.assert_close(chances, torch.full((5,), 0.2))


@pytest.mark.parametrize("seeds", [[0, 8], [-2, 0]])
def test_seeds_that_the_run_does_not_have_are_refused(seeds: list[int]) -> None:
    update = Update({"seeds": torch.tensor(seeds, dtype=torch.int32), "gradients": torch.zeros(2)})
    with pytest.raises(MessageError, match="not all among the 8 of this run"):
        FedKSeed(seeds=8).validate(update, {}, ClientProfile("c0", 8))


@pytest.mark.parametrize(
    ("tensors", "numbers"),
    [
        ({"seed": None}, {}),
        ({"seed": torch.tensor([-1], dtype=torch.int32)}, {}),
        ({"seed": torch.tensor([7])}, {}),
        ({"amounts": torch.zeros(9)}, {}),
        ({"amounts": torch.full((8,), math.nan)}, {}),
        ({"amounts": torch.zeros(8, dtype=torch.int32)}, {}),
        ({"more": torch.zeros(8)}, {}),
        ({"probabilities": torch.zeros(8)}, {}),
        ({"probabilities": torch.ones(7)}, {}),
        ({}, {"steps": math.nan}),
        ({}, {"steps": 1e12}),
        ({}, {"steps": 0.0}),
    ],
)
def test_a_client_refuses_an_instruction_that_is_none(
    tensors: dict[str, Tensor | None], numbers: dict[str, float]
) -> None:
    algorithm, learner = FedKSeed(seeds=8), Quadratic()
    whole = instruction(algorithm, algorithm.init(server(learner)))
    changed = {n: t for n, t in {**whole.tensors, **tensors}.items() if t is not None}
    learner.w += 1
    with pytest.raises(UserError, match="; look after the "):
        algorithm.train(Instruction(changed, {**whole.numbers, **numbers}), client(learner))
    assert torch.equal(learner.w, START + 1)
