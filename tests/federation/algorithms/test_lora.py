"""Algorithms about LoRA's factors: what is exact, what travels, and what stays."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.evaluation.perplexity import Perplexity
from hanse.federation.algorithms.ditto import Ditto
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedex_lora import FedExLoRA
from hanse.federation.algorithms.fedit import FedIT
from hanse.federation.algorithms.fedper import FedPer
from hanse.federation.algorithms.fedsa_lora import FedSALoRA
from hanse.federation.algorithms.ffa_lora import FFALoRA
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.algorithms.flora import FLoRA
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.algorithms.lora_fair import LoRAFAIR
from hanse.federation.algorithms.rolora import RoLoRA
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.federation.messages import ClientProfile, Reply, Request, Update
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B, Factors, stacked
from hanse.tensors.named import Tensors
from toy_learners import LAYER, Toy
from toys import Meddler, Outcome, federate, held_out, same, silos

RANK = 2
TRAINING = TrainingSettings(learning_rate=0.1, per_device_train_batch_size=4, optim="sgd")
DOWN, UP = LAYER + A, LAYER + B


def go(
    algorithm: Algorithm,
    folder: Path,
    rounds: int,
    clients: int = 3,
    beside: str = "",
    **more: Any,
) -> tuple[Outcome, Meddler]:
    """A run with LoRA, and what passed through its network."""
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    outcome = federate(
        algorithm,
        silos(clients, TRAINING, rank=RANK, beside=beside),
        folder,
        held_out(TRAINING, rank=RANK, beside=beside),
        rounds=rounds,
        network=tapped,
        **more,
    )
    return outcome, taps[0]


def updates(tap: Meddler, round: int) -> dict[str, tuple[float, Tensors]]:
    """Each client's weight and tensors in a round."""
    replies = [r for r in map(Reply.parse, tap.replies) if (r.kind, r.round) == ("train", round)]
    return {r.client: (r.update.weight, r.update.tensors) for r in replies}


def dense(start: Tensors, sent: Mapping[str, tuple[float, Tensors]]) -> Tensor:
    """Σ pₖBₖAₖ in float64, each client's factors being where it began and what it sent."""
    total = sum(weight for weight, _ in sent.values())
    found = torch.zeros(len(start[UP]), start[DOWN].shape[1], dtype=torch.float64)
    for weight, change in sent.values():
        own = {name: t.double() + change.get(name, torch.zeros(())) for name, t in start.items()}
        found += weight / total * own[UP] @ own[DOWN]
    return found


def product(model: Tensors) -> Tensor:
    return model[UP].double() @ model[DOWN].double()


@pytest.mark.parametrize(
    ("algorithm", "exact"), [(FFALoRA(), True), (RoLoRA(), True), (FedIT(), False)]
)
def test_whether_the_mean_of_products_is_met(
    algorithm: Algorithm, exact: bool, tmp_path: Path
) -> None:
    """From round 3 on both factors have moved, for those that move both."""
    before = go(algorithm, tmp_path / "before", 2)[0].server_state.algorithm_state["model"]
    after, tap = go(algorithm, tmp_path / "after", 3)
    wanted = dense(before, updates(tap, 3))
    apart = (product(after.server_state.algorithm_state["model"]) - wanted).abs().max()
    assert (apart < 1e-6) == exact


@pytest.mark.parametrize(
    "algorithm",
    [FFALoRA(), RoLoRA(), FLoRA(), FedExLoRA(), FlexLoRA(), HetLoRA(), LoRAFAIR()],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_a_head_beside_the_factors_is_averaged_as_it_is(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    outcome, tap = go(algorithm, tmp_path, 3, beside="head")
    sent = updates(tap, 3)
    total = sum(weight for weight, _ in sent.values())
    mean = torch.stack([weight / total * own["head"] for weight, own in sent.values()]).sum(dim=0)
    if algorithm.payload == "change":
        instructions = [
            r for r in map(Request.parse, tap.requests) if (r.kind, r.round) == ("train", 3)
        ]
        mean += instructions[0].instruction.tensors["head"]
    model = algorithm.model(outcome.server_state.algorithm_state)
    torch.testing.assert_close(model["head"], mean)
    assert model["head"].abs().max() > 0


def test_fedit_is_exact_if_all_a_are_equal_and_not_otherwise() -> None:
    """The mean of factors against the stack, which is the mean of products."""
    draw = torch.Generator().manual_seed(0)
    ups = [torch.randn(6, 2, generator=draw, dtype=torch.float64) for _ in range(3)]
    downs = [torch.randn(2, 5, generator=draw, dtype=torch.float64) for _ in range(3)]
    for own, exact in ((downs, False), ([downs[0]] * 3, True)):
        wanted = stacked((1 / 3, Factors(up, down)) for up, down in zip(ups, own, strict=True))
        found = sum(ups) / 3 @ (sum(own) / 3)
        assert (float((found - wanted.product()).abs().max()) < 1e-12) == exact
        covariance = sum(
            (up - sum(ups) / 3) @ (down - sum(own) / 3) for up, down in zip(ups, own, strict=True)
        )
        torch.testing.assert_close(wanted.product() - found, covariance / 3)


def test_fedit_is_fedavg(tmp_path: Path) -> None:
    plain = go(FedAvg(), tmp_path / "fedavg", 3)[0].server_state
    assert same(go(FedIT(), tmp_path / "fedit", 3)[0].server_state, plain)


def test_ffa_sends_b_alone_both_ways_and_leaves_a(tmp_path: Path) -> None:
    outcome, tap = go(FFALoRA(), tmp_path / "run", 3)
    ordered = [r.instruction.tensors for r in map(Request.parse, tap.requests)]
    assert all(set(tensors) == {UP} for tensors in ordered)
    for round in (1, 2, 3):
        assert all(set(tensors) == {UP} for _, tensors in updates(tap, round).values())
    model, initial = (
        outcome.server_state.algorithm_state["model"],
        held_out(rank=RANK)(RoundContext(0), {}).initial(),
    )
    assert torch.equal(model[DOWN], initial[DOWN])
    assert not torch.equal(model[UP], initial[UP])


def test_rolora_learns_b_and_a_in_turn(tmp_path: Path) -> None:
    models = [
        go(RoLoRA(), tmp_path / str(n), n)[0].server_state.algorithm_state["model"]
        for n in (1, 2, 3)
    ]
    initial = held_out(rank=RANK)(RoundContext(0), {}).initial()
    for before, after, name in zip((initial, *models), models, (UP, DOWN, UP), strict=False):
        other = DOWN if name == UP else UP
        assert not torch.equal(before[name], after[name])
        assert torch.equal(before[other], after[other])
    tap = go(RoLoRA(), tmp_path / "tapped", 2)[1]
    for round, name in ((1, UP), (2, DOWN)):
        assert all(set(tensors) == {name} for _, tensors in updates(tap, round).values())


def test_fedsa_never_sends_b_and_every_client_has_its_own(tmp_path: Path) -> None:
    outcome, tap = go(FedSALoRA(), tmp_path / "run", 3)
    sent = [r.instruction.tensors for r in map(Request.parse, tap.requests)]
    sent += [r.update.tensors for r in map(Reply.parse, tap.replies)]
    assert {name for tensors in sent for name in tensors} == {DOWN}
    losses = [scores["loss"] for scores in outcome.records[-1].client_test.values()]
    assert all(loss < 0.9 * torch.tensor(3.0).log() for loss in losses)  # B at zero: log 3
    assert outcome.records[-1].test["loss"] == pytest.approx(float(torch.tensor(3.0).log()))


def test_fedper_sharing_all_is_fedavg_and_sharing_some_is_not(tmp_path: Path) -> None:
    plain = go(FedAvg(), tmp_path / "fedavg", 3)[0].server_state
    assert same(go(FedPer(share=("lora",)), tmp_path / "all", 3)[0].server_state, plain)
    assert not same(go(FedPer(share=("lora_B",)), tmp_path / "some", 3)[0].server_state, plain)


def test_fedper_clients_go_on_from_what_they_keep(tmp_path: Path) -> None:
    """One client that shares nothing that is trained alone: its rounds are plain training."""
    one = FedPer(share=("lora_A",))
    outcome, _ = go(one, tmp_path / "run", 2, clients=1)
    [(name, toy)] = silos(1, TRAINING, rank=RANK).items()
    model = toy(RoundContext(0), {}).initial()
    for round in (1, 2):
        learner = toy(RoundContext(0, round, name), {})
        learner.load(model)
        learner.fit()
        model = learner.tensors()
    torch.testing.assert_close(outcome.server_state.algorithm_state["model"][DOWN], model[DOWN])


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    learner = held_out(rank=RANK)(RoundContext(0), {})
    with pytest.raises(UserError, match=r"'bias' is in no tensor's name; there are layer.lora_A"):
        FedPer(share=("lora_A", "bias")).init(Server(learner, 2, RoundContext(0)))


@pytest.mark.parametrize(
    "algorithm", [FFALoRA(), RoLoRA(), FedSALoRA(), FlexLoRA(), FLoRA(), FedExLoRA(), HetLoRA()]
)
def test_an_adapter_without_factors_is_refused(algorithm: Algorithm) -> None:
    server = Server(held_out()(RoundContext(0), {}), 2, RoundContext(0))
    with pytest.raises(UserError, match="learns LoRA's factors A and B, but the adapter has"):
        algorithm.init(server)


@pytest.mark.parametrize("stop", [1, 2])
def test_rolora_resumes_in_either_round(stop: int, tmp_path: Path) -> None:
    adamw = replace(TRAINING, optim="adamw")

    def run(folder: Path, **more: Any) -> Outcome:
        learners, server = silos(3, adamw, rank=RANK), held_out(adamw, rank=RANK)
        return federate(RoLoRA(), learners, folder, server, rounds=4, **more)

    run(tmp_path / "stopped", stop_after=stop)
    assert same(run(tmp_path / "stopped").server_state, run(tmp_path / "whole").server_state)


# ---- unequal ranks

RANKS = {"c0": 1, "c1": 2, "c2": 4}
SCALES = {"c0": 2.0, "c1": 0.5, "c2": 1.0}


def mixed(
    folder: Path,
    rounds: int,
    server: int = 3,
    training: TrainingSettings = TRAINING,
    algorithm: Algorithm = FlexLoRA(),  # noqa: B008 (frozen)
    public: Toy | None = None,
    **more: Any,
) -> tuple[Outcome, Meddler]:
    """Clients of unequal ranks and scalings.

    server: the rank of the server's adapter; public: what makes its learner, if not the usual one.
    """
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    learners = {
        name: replace(toy, rank=RANKS[name], scale=SCALES[name])
        for name, toy in silos(3, training).items()
    }
    numbers = {name: {"rank": RANKS[name], "scaling": SCALES[name]} for name in RANKS}
    public = public or held_out(training, rank=server)
    more = {"numbers": numbers, "network": tapped, "rounds": rounds, **more}
    return federate(algorithm, learners, folder, public, **more), taps[0]


def weighted(tap: Meddler, round: int) -> Tensor:
    """Σ pₖsₖBₖAₖ of what was sent, in float64."""
    sent = updates(tap, round)
    total = sum(weight for weight, _ in sent.values())
    found = torch.zeros(3, 4, dtype=torch.float64)
    for name, (weight, own) in sent.items():
        assert own[DOWN].shape == (RANKS[name], 4)
        found += weight / total * SCALES[name] * own[UP].double() @ own[DOWN].double()
    return found


def test_flexlora_keeps_the_mean_of_scaled_products(tmp_path: Path) -> None:
    outcome, tap = mixed(tmp_path / "run", 3)
    wanted, state = weighted(tap, 3), outcome.server_state.algorithm_state
    assert (product(state["product"]) - wanted).abs().max() < 1e-5
    assert (product(state["model"]) - wanted).abs().max() < 1e-5  # rank 3 holds any 3 × 4


def test_flexlora_sends_each_client_the_best_of_its_rank(tmp_path: Path) -> None:
    _, tap = mixed(tmp_path / "run", 3)
    wanted = weighted(tap, 2)
    values = torch.linalg.svdvals(wanted)
    asked = [r for r in map(Request.parse, tap.requests) if (r.kind, r.round) == ("train", 3)]
    assert len(asked) == len(RANKS)
    for request, (name, rank) in zip(asked, RANKS.items(), strict=True):
        sent = request.instruction.tensors
        assert sent[DOWN].shape[0] == min(rank, 2)  # a softmax's gradients sum to zero
        away = (SCALES[name] * product(sent) - wanted).norm()
        assert float(away) == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-5)


def test_a_rank_beyond_the_products_goes_on_learning(tmp_path: Path) -> None:
    """c2 has rank 4, and no product of 3 × 4 has: its fourth row must be ready to learn."""
    _, tap = mixed(tmp_path / "run", 3)
    learned = updates(tap, 3)["c2"][1]
    assert float(learned[UP][:, 3].norm()) > 1e-4
    assert float(learned[DOWN][3].norm()) > 1e-4


def test_a_server_of_low_rank_evaluates_the_best_of_its_rank(tmp_path: Path) -> None:
    outcome, _ = mixed(tmp_path / "run", 2, server=1)
    state = outcome.server_state.algorithm_state
    away = float((product(state["model"]) - product(state["product"])).norm())
    tail = float(torch.linalg.svdvals(product(state["product"]))[1:].square().sum().sqrt())
    assert away == pytest.approx(tail, abs=1e-6)
    assert tail > 1e-3


@pytest.mark.parametrize("algorithm", [FlexLoRA(), FLoRA()])
def test_unequal_ranks_resume(algorithm: Algorithm, tmp_path: Path) -> None:
    def go_on(folder: str, **more: Any) -> Any:
        own = replace(TRAINING, optim="adamw")
        return mixed(tmp_path / folder, 4, training=own, algorithm=algorithm, **more)[
            0
        ].server_state

    go_on("stopped", stop_after=2)
    assert same(go_on("stopped"), go_on("whole"))


def test_flora_adds_up_the_means_of_scaled_products(tmp_path: Path) -> None:
    outcome, tap = mixed(tmp_path / "run", 3, algorithm=FLoRA())
    wanted = weighted(tap, 1) + weighted(tap, 2) + weighted(tap, 3)
    state = outcome.server_state.algorithm_state
    assert (product(state["residual"]) - wanted).abs().max() < 1e-5
    # Seven columns came in each round; the rows of a softmax's gradient sum to zero.
    assert len(state["residual"][DOWN]) == 2
    assert not state["model"][UP].any()


def test_flora_begins_every_round_afresh(tmp_path: Path) -> None:
    """One step of plain SGD from B at zero leaves A, which has no gradient yet, as it was drawn."""
    once = replace(TRAINING, max_steps=1)
    _, tap = mixed(tmp_path / "run", 3, training=once, algorithm=FLoRA())
    drawn = [updates(tap, round)[name][1][DOWN] for round in (1, 2, 3) for name in RANKS]
    assert len({tuple(a.flatten().tolist()) for a in drawn}) == 9
    assert all(a.abs().max() <= 0.5 for a in drawn)  # 1/√4


def test_fedex_is_exact_where_the_mean_of_factors_is_not(tmp_path: Path) -> None:
    outcome, tap = go(FedExLoRA(), tmp_path / "run", 3)
    total, before = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    for round in (1, 2, 3):
        sent = updates(tap, round)
        whole = sum(weight for weight, _ in sent.values())
        mean = {n: sum(w / whole * t[n].double() for w, t in sent.values()) for n in (UP, DOWN)}
        exact = sum(w / whole * product(t) for w, t in sent.values())
        total, before = total + exact - product(mean), product(mean)
    state = outcome.server_state.algorithm_state
    assert (product(state["model"]) - before).abs().max() < 1e-6
    assert (product(state["residual"]) - total).abs().max() < 1e-6
    assert total.abs().max() > 1e-3


def test_fedex_of_one_client_is_fedit(tmp_path: Path) -> None:
    state = go(FedExLoRA(), tmp_path / "run", 2, clients=1)[0].server_state.algorithm_state
    plain = go(FedIT(), tmp_path / "fedit", 2, clients=1)[0].server_state.algorithm_state
    assert product(state["residual"]).abs().max() < 1e-6
    for name, tensor in plain["model"].items():
        torch.testing.assert_close(state["model"][name], tensor)


@pytest.mark.parametrize("algorithm", [FLoRA(), FedExLoRA()])
def test_clients_are_told_of_the_residual(algorithm: Algorithm, tmp_path: Path) -> None:
    """What a client evaluates is what the server does: the sum of adapter and residual."""
    outcome, tap = go(algorithm, tmp_path / "run", 2)
    asked = [r for r in map(Request.parse, tap.requests) if r.kind == "evaluate"]
    sent = asked[0].instruction.tensors
    for name, tensor in outcome.server_state.algorithm_state["residual"].items():
        assert torch.equal(sent[f"residual/{name}"], tensor)


def test_hetlora_averages_what_has_the_root_of_s_in_it(tmp_path: Path) -> None:
    """The formula, naively; c2, of rank 4, needs a server of that rank, whose s is 3."""
    server = replace(held_out(TRAINING, rank=4), scale=3.0)
    before = mixed(tmp_path / "before", 1, algorithm=HetLoRA(), public=server)[0]
    outcome, tap = mixed(tmp_path / "run", 2, algorithm=HetLoRA(), public=server)
    start = before.server_state.algorithm_state["model"]
    asked = [r for r in map(Request.parse, tap.requests) if (r.kind, r.round) == ("train", 2)]
    for request, (name, rank) in zip(asked, RANKS.items(), strict=True):
        own = request.instruction.tensors
        part = 3.0 * start[UP][:, :rank].double() @ start[DOWN][:rank].double()
        torch.testing.assert_close(SCALES[name] * product(own), part, atol=1e-6, rtol=0)
        torch.testing.assert_close(own[DOWN], start[DOWN][:rank] * (3.0 / SCALES[name]) ** 0.5)
    up, down = (torch.zeros(start[n].shape, dtype=torch.float64) for n in (UP, DOWN))
    sent = updates(tap, 2)
    norms = {n: SCALES[n] * float(product(own).norm()) for n, (_, own) in sent.items()}
    for name, (_, own) in sent.items():
        share, rank = norms[name] / sum(norms.values()), RANKS[name]
        up[:, :rank] += share * (SCALES[name] / 3.0) ** 0.5 * own[UP]
        down[:rank] += share * (SCALES[name] / 3.0) ** 0.5 * own[DOWN]
    model = outcome.server_state.algorithm_state["model"]
    torch.testing.assert_close(model[UP].double(), up, atol=1e-6, rtol=0)
    torch.testing.assert_close(model[DOWN].double(), down, atol=1e-6, rtol=0)


def test_hetlora_with_equal_ranks_and_norms_is_fedit() -> None:
    """Two clients, the one's factors being the other's turned about: of one norm."""
    draw = torch.Generator().manual_seed(0)
    up, down = torch.randn(3, RANK, generator=draw), torch.randn(RANK, 4, generator=draw)
    own = [{UP: up, DOWN: down}, {UP: -up.flip(1), DOWN: -down.flip(0)}]
    profiles = [ClientProfile(f"c{n}", 5, {"rank": RANK}) for n in range(2)]
    combined = HetLoRA().combine(
        [(profile, Update(one, {}, 5.0)) for profile, one in zip(profiles, own, strict=True)]
    )
    for name in (UP, DOWN):
        torch.testing.assert_close(combined.tensors[name], (own[0][name] + own[1][name]) / 2)


def test_hetlora_leaves_rows_that_nobody_trained(tmp_path: Path) -> None:
    """Of the server's five rows the largest client has four, of another s."""
    server = replace(held_out(TRAINING, rank=5), scale=3.0)
    outcome, _ = mixed(tmp_path / "run", 4, algorithm=HetLoRA(), public=server)
    initial = held_out(rank=5)(RoundContext(0), {}).initial()
    model = outcome.server_state.algorithm_state["model"]
    assert torch.equal(model[DOWN][4], initial[DOWN][4])
    assert torch.equal(model[UP][:, 4], initial[UP][:, 4])
    assert not torch.equal(model[DOWN][3], initial[DOWN][3])


def test_a_rank_above_the_servers_is_refused_by_hetlora(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c2 has rank 4, but hetlora .* set adapter.lora.r to"):
        mixed(tmp_path / "run", 1, server=3, algorithm=HetLoRA())


def mended(strength: float) -> tuple[Tensor, Tensor, list[tuple[float, Tensors]]]:
    """B as LoRA-FAIR leaves it, the mean A, and the clients' shares and factors."""
    draw = torch.Generator().manual_seed(1)
    own = [
        {UP: torch.randn(6, RANK, generator=draw), DOWN: torch.randn(RANK, 5, generator=draw)}
        for _ in range(3)
    ]
    weights = (1.0, 2.0, 5.0)
    updates = [
        (ClientProfile(f"c{n}", 1, {"rank": RANK}), Update(one, {}, weight))
        for n, (one, weight) in enumerate(zip(own, weights, strict=True))
    ]
    found = LoRAFAIR(strength=strength).combine(updates).tensors
    shares = [weight / sum(weights) for weight in weights]
    return found[UP].double(), found[DOWN].double(), list(zip(shares, own, strict=True))


def test_lora_fair_finds_the_least_loss() -> None:
    """Against gradient descent on the loss that it says it minimizes."""
    up, down, parts = mended(0.3)
    middle = sum(share * one[UP].double() for share, one in parts)
    goal = sum(share * product(one) for share, one in parts)
    change = torch.zeros_like(middle, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=200, tolerance_grad=1e-12)

    def loss() -> Tensor:
        optimizer.zero_grad()
        lacking = (goal - (middle + change) @ down).square().sum()
        value = lacking + 0.3 * down.square().sum() / RANK * change.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(up, (middle + change).detach(), atol=1e-5, rtol=0)


def test_lora_fair_lies_between_fedit_and_the_exact_mean() -> None:
    def missed(strength: float) -> float:
        up, down, parts = mended(strength)
        return float((up @ down - sum(share * product(one) for share, one in parts)).norm())

    up, _, parts = mended(1e9)
    torch.testing.assert_close(up, sum(s * one[UP].double() for s, one in parts), atol=1e-6, rtol=0)
    assert missed(1e-9) < missed(0.1) < missed(1e9)


# ---- personal models


def test_ditto_without_strength_is_local_training_beside_fedavg(tmp_path: Path) -> None:
    outcome, _ = go(Ditto(strength=0), tmp_path / "run", 3)
    plain = go(FedAvg(), tmp_path / "fedavg", 3)[0].server_state.algorithm_state["model"]
    for name, tensor in outcome.server_state.algorithm_state["model"].items():
        assert torch.equal(tensor, plain[name])
    scores = outcome.records[-1].client_test
    for name, toy in silos(3, TRAINING, rank=RANK).items():
        model = toy(RoundContext(0), {}).initial()
        for round in (1, 2, 3):
            learner = toy(RoundContext(0, round, name), {})
            learner.load(model)
            learner.fit()
            model = learner.tensors()
        wanted = Perplexity().evaluate(learner, "test").metrics["loss"]
        assert scores[name]["loss"] == pytest.approx(wanted, abs=1e-6)


def test_a_strong_ditto_holds_clients_to_the_global_model(tmp_path: Path) -> None:
    """Twice the loss's pull and more: steps of 0.1 times 5 bring v half of the way to x each."""
    spread = {}
    for strength in (0.0, 5.0):
        outcome, _ = go(Ditto(strength=strength), tmp_path / str(strength), 4)
        plain = go(FedAvg(), tmp_path / f"{strength} plain", 4)[0].records[-1].client_test
        own = outcome.records[-1].client_test
        spread[strength] = sum(abs(own[name]["loss"] - plain[name]["loss"]) for name in own)
    assert spread[5.0] < 0.5 * spread[0.0]
