"""Operations are counted as a closed form counts them, and a run is not disturbed by it."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import Linear

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners import flops
from hanse.learners.kernels import frozen
from hanse.learners.objectives.sft import Sft
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from toy_learners import CLASSES, FEATURES
from toys import silos

CPU = torch.device("cpu")


def test_softmax_regression_is_counted_by_hand() -> None:
    learner = silos(1)["c0"](RoundContext(0), {})
    found = flops.per_token(learner, Sft(), learner.examples("train"))
    product = 2 * FEATURES * CLASSES  # one row; backward needs the weight's gradient alone
    assert found["forward_flops_per_token"] == product
    assert found["train_flops_per_token"] == 2 * product


def test_a_language_model_is_counted_by_hand(experiment_file: Path) -> None:
    simulation = simulate(load(experiment_file))
    learner, rows = simulation.learner, simulation.clients["silo-1"].examples["train"]
    found = flops.per_token(learner, learner.objective, rows)
    tokens = len(sorted(rows, key=len)[len(rows) // 2])
    model = learner.backbone.model
    layers = [m for m in model.modules() if isinstance(m, Linear)]
    head = model.get_output_embeddings()
    products = sum(2 * m.weight.numel() * (1 if m is head else tokens) for m in layers)
    config = model.config
    attention = config.num_hidden_layers * 4 * tokens**2 * config.hidden_size  # QKᵀ, and PV
    assert found["forward_flops_per_token"] == pytest.approx((products + attention) / tokens)
    assert found["train_flops_per_token"] > 1.5 * found["forward_flops_per_token"]


@pytest.mark.parametrize("kernel", frozen.kernels(CPU))
def test_each_kernel_is_counted_as_the_plain_layers(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setattr(frozen, "SMALLEST", 1)

    def counted(products: str) -> dict[str, float]:
        simulation = simulate(load(experiment_file, [f"model.products={products}"]))
        rows = simulation.clients["silo-1"].examples["train"]
        return flops.per_token(simulation.learner, simulation.learner.objective, rows)

    assert counted(kernel) == pytest.approx(counted("plain"))


def test_nothing_of_the_learner_is_touched(experiment_file: Path) -> None:
    simulation = simulate(load(experiment_file, ["adapter.lora.lora_dropout=0.5"]))
    learner = simulation.learner
    rows = simulation.clients["silo-1"].examples["train"]
    before, state = learner.tensors(), torch.get_rng_state()
    flops.per_token(learner, learner.objective, rows)
    flops.peak(CPU, torch.float32)
    assert all(parameter.grad is None for parameter in learner.parameters().values())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.tensors().items())
    assert not learner.backbone.model.training


def test_a_run_ends_in_the_same_adapter_without_the_measurement(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["adapter.lora.lora_dropout=0.3", "rounds=2"]
    measured = simulation.run(load(experiment_file, words))
    noted = json.loads((measured / "machine.json").read_text())
    for name in ("peak_flops", "train_flops_per_token", "forward_flops_per_token"):
        assert noted[name] > 0
    monkeypatch.setattr(simulation, "_measured_speed", lambda _: {})
    plain = simulation.run(load(experiment_file, [*words, f"output_dir={tmp_path / 'plain'}"]))
    assert json.loads((plain / "machine.json").read_text())["peak_flops"] is None
    weights = "adapter/adapter_model.safetensors"
    assert (measured / weights).read_bytes() == (plain / weights).read_bytes()


def test_heads_that_share_their_keys_are_counted_as_if_they_did_not() -> None:
    query, shared = torch.Size((2, 4, 20, 8)), torch.Size((2, 2, 30, 8))
    product = 2 * (2 * 4 * 20 * 30 * 8)  # QKᵀ is as large as PV
    assert flops._attention(query, shared, shared) == 2 * product
    back = flops._attention_backward(query, query, shared, shared)
    assert back == flops._attention_backward(query, query, *[torch.Size((2, 4, 30, 8))] * 2)
    assert back >= 4 * product  # two products give two gradients each


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_what_cannot_be_counted_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    learner = silos(1)["c0"](RoundContext(0), {})

    def loss(*_: object) -> None:
        raise kind("no rule for this operator")

    monkeypatch.setattr(Sft, "loss", loss)
    assert flops.per_token(learner, Sft(), learner.examples("train")) == {}


@pytest.mark.parametrize("kernels", [("torch",), ("torch", "onednn", "packed")])
def test_the_peak_is_that_of_the_fastest_product(
    monkeypatch: pytest.MonkeyPatch, kernels: tuple[str, ...]
) -> None:
    """A machine that does 2 GFLOP/s, 4 with packed weights, and takes 10 ms more for a product."""
    now = [0.0]
    rates = {"torch": 2e9, "packed": 4e9}

    def product(left: torch.Tensor, weight: torch.Tensor, kernel: str) -> float:
        seconds = 2 * len(left) ** 3 / rates[kernel] + 0.01
        now[0] += seconds
        return seconds

    monkeypatch.setattr(flops, "_seconds", product)
    monkeypatch.setattr(flops.frozen, "kernels", lambda device: kernels)
    monkeypatch.setattr(flops.frozen, "packed", lambda weight: weight)
    monkeypatch.setattr(flops.time, "perf_counter", lambda: now[0])
    flops.peak.cache_clear()
    try:
        found = flops.peak(CPU, torch.float32)
    finally:
        flops.peak.cache_clear()
    operations = 2 * 512**3
    assert found == pytest.approx(operations / (operations / rates[kernels[-1]] + 0.01))
    assert now[0] < flops.BUDGET
