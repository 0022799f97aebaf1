"""Strain test: factors of unequal ranks that grow in mid-run, combined exactly.

The model is a product B·A. Each client gets the best factors of its own rank (FlexLoRA,
2402.11505), trains them, and the server takes the mean of the products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.messages import ClientProfile, Instruction, Reply, Update
from hanse.journal.run_folder import read_ledger
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, layout
from hanse.tensors.serialization import Numbers
from toy_learners import CLASSES, FEATURES, Batch, Toy, ToyLearner
from toys import Meddler, Outcome, federate, same, silos
from toys import held_out as public

FULL = min(CLASSES, FEATURES)
GROWTH = 3  # the round from which on the grown rank holds
RANKS = {
    "c0": {"rank": 1, "grown": 3},
    "c1": {"rank": 2, "grown": 2},
    "c2": {"rank": 1, "grown": 2},
    "c3": {"rank": 3, "grown": 3},
}


class Factored(ToyLearner):
    """Softmax regression with the weight B·A: B is (classes, rank), A is (rank, features)."""

    def __init__(self, toy: Toy, context: RoundContext, optimizer_state: Memory) -> None:
        super().__init__(toy, context, optimizer_state)
        self.configure({"rank": FULL})

    def configure(self, numbers: Numbers) -> None:
        rank, draw = int(numbers["rank"]), torch.Generator().manual_seed(5)
        a = torch.randn(FULL, FEATURES, generator=draw)[:rank] / 2
        self._live = {"A": Parameter(a.clone()), "B": Parameter(torch.full((CLASSES, rank), 0.01))}

    def forward(self, batch: Batch) -> Tensor:
        return batch.x @ self._live["A"].T @ self._live["B"].T


@dataclass(frozen=True)
class Make(Toy):
    """Makes `Factored` learners; a stubborn one keeps its rank whatever the order says."""

    stubborn: bool = False

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> Factored:
        return Factored(self, context, optimizer_state)


@dataclass(frozen=True)
class Ranks(Algorithm):
    """Truncated factors go down, trained factors come up, and the mean is that of the products."""

    payload = "factors"

    def init(self, server: Server) -> State:
        factors = best(product(server.learner.tensors()))
        return {"model": factors}

    def rank(self, profile: ClientProfile, context: RoundContext) -> int:
        """The client's rank in the round at `context`."""
        return int(profile.numbers["grown" if context.round >= GROWTH else "rank"])

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        rank = self.rank(profile, context)
        return Instruction(truncated(state["model"], rank), {"rank": rank})

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(truncated(state["model"], self.rank(profile, context)))

    def train(self, instruction: Instruction, client: Client) -> Update:
        client.learner.load(instruction.tensors)
        fit = client.learner.fit()
        return Update(client.learner.tensors(), fit.numbers(), weight=fit.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        weight = sum(update.weight for _, update in updates)
        # Side by side, B's scaled by their shares: (classes, Σ ranks) · (Σ ranks, features)
        b = torch.cat([u.tensors["B"].double() * (u.weight / weight) for _, u in updates], dim=1)
        a = torch.cat([u.tensors["A"].double() for _, u in updates])
        clients = tuple(profile.name for profile, _ in updates)
        return Aggregate({"A": a, "B": b}, {}, weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {"model": best(product(combined.tensors))}


def product(factors: Tensors) -> Tensor:
    """The weight that factors stand for, in float64: (classes, features)."""
    return factors["B"].double() @ factors["A"].double()


def best(weight: Tensor) -> Tensors:
    """Factors of full rank, the most important first."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = s.sqrt()
    return {"A": (root[:, None] * vh).float(), "B": (u * root).float()}


def truncated(factors: Tensors, rank: int) -> Tensors:
    """The first `rank` of the factors."""
    return {
        "A": factors["A"][:rank].contiguous(),
        "B": factors["B"][:, :rank].contiguous(),
    }


TRAINING = TrainingSettings(learning_rate=0.05, per_device_train_batch_size=4)


def go(folder: Path, training: TrainingSettings = TRAINING, **more: Any) -> Outcome:
    """A run of four rounds with the ranks above."""
    learners = {name: Make(toy.splits, training) for name, toy in silos(4).items()}
    server = Make(public().splits, training)
    settings = {"rounds": 4, "numbers": RANKS, **more}
    return federate(Ranks(), learners, folder, server, **settings)


def test_aggregate_is_the_mean_of_products(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    outcome = go(tmp_path / "run", network=tapped)
    replies = [reply for reply in map(Reply.parse, taps[0].replies) if reply.kind == "train"]
    last = [reply.update for reply in replies if reply.round == 4]
    weight = sum(update.weight for update in last)
    dense = sum(update.weight / weight * product(update.tensors) for update in last)
    assert len({update.weight for update in last}) == 4  # a plain mean would be another
    assert torch.allclose(product(outcome.server_state.algorithm_state["model"]), dense, atol=1e-6)
    came = {(r.client, r.round): r.update.tensors["A"].shape[0] for r in replies}
    for name, numbers in RANKS.items():
        grown = [came[name, number] for number in (1, 2, 3, 4)]
        assert grown == [numbers["rank"]] * 2 + [numbers["grown"]] * 2


def test_it_learns(tmp_path: Path) -> None:
    start, end = (go(tmp_path / "run").records[at].test["loss"] for at in (0, -1))
    assert end < 0.7 * start


def test_a_wrong_rank_is_refused(tmp_path: Path) -> None:
    def stuck(reply: Reply) -> Reply:
        """c0 does not grow with the others."""
        if reply.client != "c0" or reply.kind != "train" or reply.round < GROWTH:
            return reply
        tensors = truncated(reply.update.tensors, 1)
        return replace(reply, update=replace(reply.update, tensors=tensors))

    def gone(client: str, kind: str, round: int) -> bool:
        return client == "c0" and kind == "train" and round >= GROWTH

    refused = go(tmp_path / "refused", network=lambda inner: Meddler(inner, changed=stuck))
    without = go(tmp_path / "without", network=lambda inner: Meddler(inner, lost=gone))
    assert same(refused.server_state, without.server_state)
    assert refused.records[-1].clients == ("c1", "c2", "c3")
    rows = read_ledger(tmp_path / "refused")
    refused_for = [row.error for row in rows if row.error]
    assert all("expected (3, " in error for error in refused_for)
    assert len(refused_for) == 2  # rounds 3 and 4


def test_a_learner_of_another_rank_takes_no_factors() -> None:
    learner = Make(public().splits)(RoundContext(0), {})
    factors = learner.tensors()
    learner.configure({"rank": FULL})
    with pytest.raises(UserError, match="rank"):  # rank 1 would broadcast to any other
        learner.load(truncated(factors, 1))


@pytest.mark.parametrize("stop", [1, GROWTH - 1, GROWTH])
def test_resume_across_the_growth_equals_no_stop(tmp_path: Path, stop: int) -> None:
    go(tmp_path / "stopped", stop_after=stop)
    assert same(go(tmp_path / "stopped").server_state, go(tmp_path / "whole").server_state)


def test_optimizer_state_outlives_the_growth(tmp_path: Path) -> None:
    keep = replace(TRAINING, optimizer_state="keep")
    whole = go(tmp_path / "whole", keep)
    go(tmp_path / "stopped", keep, stop_after=GROWTH - 1)
    assert same(go(tmp_path / "stopped", keep).server_state, whole.server_state)
