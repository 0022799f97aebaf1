"""FedKSeed by sums: the same model as by steps, also where the server sees sums only."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse import registry
from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedkseed import FedKSeed
from hanse.federation.algorithms.fedkseed_sums import FedKSeedSums, lone_share
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.rand_k import RandK
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext
from parts.plain_rules import Median
from parts.secure_sum import SecureSum
from toy_learners import QUICK, InPlaceToy
from toys import Meddler, federate, held_out, silos

SETTINGS: dict[str, Any] = {"seeds": 16, "epsilon": 0.01}


def summed(algorithm: FedKSeed, rule: Aggregator, folder: Path, rounds: int) -> Tensor:
    """G (K,) after rounds with four clients of 8 to 20 examples."""
    toys, server = silos(4, whole=True), held_out(whole=True)
    outcome = federate(algorithm, toys, folder, server, rounds=rounds, aggregator=rule)
    return outcome.server_state.algorithm_state["sums"]["gradients"]


@pytest.mark.parametrize("rule", [Mean(), SecureSum()])
def test_sums_give_the_model_of_fedkseed(rule: Aggregator, tmp_path: Path) -> None:
    # Each client rounds its sums to 2⁻¹⁷ of an example at most under the toy of secure sums.
    rounding = 4 * 2.0**-17 / (8 + 12 + 16 + 20) if isinstance(rule, SecureSum) else 0.0
    for rounds, near in ((1, 1e-6 + rounding), (3, 1e-3)):  # ε amplifies what losses are rounded by
        plain = summed(FedKSeed(**SETTINGS), Mean(), tmp_path / f"plain {rounds}", rounds)
        sums = summed(FedKSeedSums(**SETTINGS), rule, tmp_path / f"sums {rounds}", rounds)
        torch.testing.assert_close(sums, plain, atol=near, rtol=1e-6)
        assert sums.dtype == torch.float64
        assert float(sums.abs().max()) > 0.1


def trained(algorithm: FedKSeed, lost: int) -> Update:
    """The update of a client with 8 examples and six steps, and one loss that is not finite.

    lost: the number of this loss, from 1; each step has two losses.
    """
    context = RoundContext(0, 1, "c0")
    toy = silos(1, replace(QUICK, max_steps=6), whole=True)["c0"]
    learner, profile = toy(context, {}), ClientProfile("c0", 8)
    assert isinstance(learner, InPlaceToy)
    calls, loss = Counter[str](), learner.loss

    def failing(batches: Any) -> float:
        calls["loss"] += 1
        return math.nan if calls["loss"] == lost else loss(batches)

    vars(learner)["loss"] = failing
    state = algorithm.init(Server(learner, 1, RoundContext(0)))
    instruction = algorithm.instruction(state, profile, context)
    return algorithm.train(instruction, Client(profile, learner, {}, {}, context))


def test_an_update_is_the_steps_of_fedkseed_added_by_seed() -> None:
    few = {**SETTINGS, "seeds": 2}  # fewer than steps, so that a seed comes more than once
    steps, update = (trained(kind(**few), lost=3) for kind in (FedKSeed, FedKSeedSums))
    expected = [0.0, 0.0]
    seeds, gradients = (steps.tensors[name].tolist() for name in ("seeds", "gradients"))
    for seed, gradient in zip(seeds, gradients, strict=True):
        if seed >= 0:
            expected[seed] += gradient
    assert seeds.count(-1) == 1  # a step that was left out
    assert max(seeds.count(0), seeds.count(1)) > 1
    assert update.tensors["gradients"].dtype == torch.float32
    torch.testing.assert_close(update.tensors["gradients"], torch.tensor(expected))
    assert update.numbers["steps"] == steps.numbers["steps"]
    assert update.weight == steps.weight == 8


def test_a_client_sends_four_bytes_a_seed(tmp_path: Path) -> None:
    networks: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    algorithm, server = FedKSeedSums(seeds=4096), held_out(whole=True)
    federate(algorithm, silos(2, whole=True), tmp_path, server, rounds=1, network=tapped)
    replies = [m for m in networks[0].replies if Reply.parse(m).kind == "train"]
    assert len(replies) == 2
    for reply in replies:
        tensors = Reply.parse(reply).update.tensors
        assert {name: t.nbytes for name, t in tensors.items()} == {"gradients": 16_384}
        assert len(reply) <= 16_384 + 1024


def test_the_share_of_lone_seeds_is_that_of_drawn_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    lone = drawn = 0
    for _ in range(300):
        seeds = torch.randint(50, (4, 20), generator=draw)  # 4 clients with 20 steps each
        clients = sum((torch.bincount(own, minlength=50) > 0).int() for own in seeds)
        lone, drawn = lone + int((clients == 1).sum()), drawn + int((clients > 0).sum())
    assert lone_share(50, 20, 4) == pytest.approx(lone / drawn, rel=0.03)
    assert lone_share(50, 20, 1) == 1.0
    assert lone_share(1, 20, 4) == 0.0


@pytest.mark.parametrize(("seeds", "warned"), [(4096, True), (2, False)])
def test_a_run_tells_that_sums_show_single_clients(
    seeds: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = held_out(replace(QUICK, max_steps=20), whole=True)(RoundContext(0), {})
    FedKSeedSums(seeds=seeds).init(Server(server, 4, RoundContext(0)))
    assert ("lower fedkseed_sums.seeds, which is 4096" in caplog.text) == warned
    assert bool(caplog.records) == warned


def test_fedkseed_pro_is_refused_with_a_way_out() -> None:
    with pytest.raises(UserError, match=r"weights them .*; set pro: false, or choose algorithm: "):
        registry.build("federation/algorithms", {"fedkseed_sums": {"pro": True}})


def test_rules_that_give_no_mean_are_refused() -> None:
    check(FedKSeedSums(), SecureSum())
    with pytest.raises(UserError, match="FedKSeedSums needs the mean of all updates"):
        check(FedKSeedSums(), Median())


def test_a_share_of_the_sums_can_be_sent_and_the_rest_later() -> None:
    upload = Pipelines(Pipeline("upload", (RandK(share=0.5),), error_feedback=True))
    check(FedKSeedSums(), Mean(), upload)
    with pytest.raises(UserError, match="RandK takes change, but FedKSeed sends scalars"):
        check(FedKSeed(), Mean(), upload)
    h, memory, total = torch.arange(16.0), {}, torch.zeros(16)  # type: ignore[var-annotated]
    states = upload.upload.init({"gradients": h.to("meta")})
    for number in range(1, 9):
        context = RoundContext(0, number)
        sent = upload.upload.encode(Update({"gradients": h}), memory, states, context)
        total += upload.upload.decode(sent, states, context).tensors["gradients"]
    torch.testing.assert_close(total + memory["upload.feedback"]["gradients"], 8 * h)
    assert float(total.abs().sum()) > 0.7 * float((8 * h).sum())
