"""The page of FedAvg from scratch says what the package does."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hanse.experiment.assembly import assemble
from hanse.experiment.loading import load
from hanse.learners.injection.adapter_files import read
from hanse.learners.training.batch_sampling import sample_batches
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from samples import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def scratch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scratch", EXAMPLES / "fedavg_from_scratch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scratch"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2"])
def test_the_naive_twin_ends_in_the_same_adapter(
    model: str,
    scratch: ModuleType,
    experiment_file: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    words = [
        f"model.model_name_or_path={request.getfixturevalue(model)}",
        "objective=sft",
        "rounds=2",
        "train.per_device_train_batch_size=4",
        "data.partition=iid",
    ]
    experiment = load(experiment_file, words)
    prepared = assemble.simulate(experiment)
    net = prepared.learner.backbone.activate(prepared.learner.adapter)

    def same_batches(silo: list, round: int, name: str) -> Iterator[list]:
        context = RoundContext(experiment.seed, round, name)
        for step in sample_batches([len(ids) for ids, _ in silo], experiment.train, context):
            yield [silo[index] for index in step[0]]

    silos = {
        name: [(list(e.ids), list(e.labels)) for e in silo.examples["train"]]
        for name, silo in prepared.clients.items()
    }
    found = scratch.fedavg(net, silos, rounds=2, rate=0.01, draw=same_batches)
    folder = simulation.run(experiment)
    _, expected = read(folder / "adapter")
    assert len(expected) == len(found)
    for name, tensor in found.items():
        wanted = expected[name.replace(f".{prepared.learner.adapter}.", ".")]
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(tensor, wanted, atol=2e-6, rtol=1e-5)
