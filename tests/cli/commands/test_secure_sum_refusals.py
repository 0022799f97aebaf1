"""Settings of secure sums that cannot work are refused in a sentence, before a model is loaded."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from hanse.errors import UserError
from hanse.federation.aggregators.secagg import SecAgg
from samples import Outcome

SECAGG = "aggregator=secagg"
REFUSED = {
    "a threshold above the number of silos": (
        ["aggregator={secagg: {threshold: 9}}"],
        "secagg.threshold is 9, but only 3 silos take part; set it to 3.",
    ),
    "a threshold below a majority": (
        ["aggregator={secagg: {threshold: 2}}", "num_clients=5"],
        "secagg.threshold is 2, no majority of 5 silos",
    ),
    "two silos": (
        [SECAGG, "num_clients=2"],
        "a round of secure sums has 2 silos, and the sum of two silos' updates tells each the "
        "other's; let at least 3 take part (num_clients, fraction_train)",
    ),
    "two silos of three in a round": (
        [SECAGG, "fraction_train=0.67"],
        "a round of secure sums has 2 silos",
    ),
    "too many colluders": (
        ["aggregator={secagg: {colluders: 0.9}}"],
        "2 of 3 silos collude by aggregator.secagg.colluders",
    ),
    "a codec that rounds": (
        [SECAGG, "compression=int8"],
        "SecAgg sees only sums, but Int8 needs each client's update; leave it out of "
        "compression.upload, and set aggregator.secagg.bits in its place.",
    ),
    "a codec that chooses numbers": (
        [SECAGG, "compression=top_k"],
        "SecAgg sees only sums, but TopK needs each client's update; choose the aggregator mean, "
        "or name powersgd or rand_k in its place in compression.upload.",
    ),
    "an algorithm that combines updates": (
        [SECAGG, "algorithm=flora"],
        "SecAgg sees only sums, but FLoRA needs each client's update; choose the aggregator mean, "
        "or the algorithm ffa_lora.",
    ),
    "ranks of their own": (
        [SECAGG, "algorithm=hetlora"],
        "SecAgg sees only sums, but HetLoRA needs each client's update",
    ),
    "another codec at one client": (
        [SECAGG, "clients.silo-2.compression=identity"],
        "clients.silo-2 has compression of its own, but SecAgg sees sums only",
    ),
    "collected updates": (
        [SECAGG, "compression.collect=true"],
        "compression.collect keeps each client's change of the model, but SecAgg sees only sums",
    ),
    "noise at the server": (
        [SECAGG, "privacy={client_dp: {epsilon: 8}}"],
        "SecAgg sees only sums, but ClientDp needs each client's update; choose privacy: "
        "distributed_gaussian, whose noise adds up, or the aggregator mean.",
    ),
    "noise that adds up without sums": (
        ["privacy=distributed_gaussian"],
        "DistributedGaussian draws noise that protects only sums over clients, and Mean sees each "
        "client's update; choose an aggregator that sees only sums, such as secagg, or leave it "
        "out of privacy.",
    ),
    "a codec beside noise that adds up": (
        [SECAGG, "privacy=distributed_gaussian", "compression=rand_k"],
        "DistributedGaussian sends whole numbers, whose noise adds up if they arrive as they are, "
        "and RandK changes them; leave it out of compression.upload.",
    ),
    "a budget that no noise keeps": (
        [SECAGG, "privacy={distributed_gaussian: {epsilon: 0.00001}}", "rounds=10000"],
        "an ε of 1e-05 at δ = 1e-05 cannot be kept in 10,000 rounds by a noise multiplier up to",
    ),
    "a clip of nothing": (
        ["aggregator={secagg: {clip: 0}}"],
        "secagg.clip is 0; input should be greater than 0",
    ),
    "8 bits": (["aggregator={secagg: {bits: 8}}"], "secagg.bits is 8; input should be 16, 32"),
    "another rule beside it": (
        ["aggregator={secagg: {}, mean: {}}"],
        "aggregator names secagg and mean, and one rule combines the updates; choose one of them.",
    ),
    "a robust rule beside it": (
        ["aggregator=[secagg, {krum: {attackers: 1}}]"],
        "aggregator names secagg and krum, and one rule combines the updates; choose one of them.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_work_are_refused_before_a_model_is_loaded(
    case: str, hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    words, reason = REFUSED[case]
    with mock.patch("hanse.experiment.assembly.resources.load") as load:
        done = hanse("check", experiment_file, *words)
    error = " ".join(done.err.split())
    assert done.code == 2 and not load.called
    assert reason in error and "Traceback" not in error


def test_few_bits_for_many_silos_are_refused() -> None:
    SecAgg(bits=16).require_clients(160)
    with pytest.raises(UserError, match=r"bits is 16, and sums of 400 clients .* set it to 32"):
        SecAgg(bits=16).require_clients(400)
