"""FedAdapter in whole runs on a real model's shape: cohorts, resume, what is saved, refusals."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.journal.checkpoints import latest
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.planning.preview import estimate
from hanse.simulation import run as simulation
from stopping import ctrl_c

ALGORITHM = (
    "algorithm={fedadapter: {width: 1, wider: 2, budget: 0.003, rate: 1000, step_seconds: 0.001, "
    "layer_seconds: 0.001}}"
)
BOTTLENECKS = ("adapter={pfeiffer: {reduction_factor: 6.4}}", ALGORITHM)  # 5 of 32 inner numbers
WORDS = (*BOTTLENECKS, "rounds=6", "data.validation=16", "train.learning_rate=0.02")


def run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, words))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def size(folder: Path) -> tuple[int, int]:
    """Depth and width at the end of a run."""
    checkpoint = latest(folder)
    assert checkpoint is not None
    numbers = checkpoint.groups["algorithm.size"]
    return int(numbers["depth"]), int(numbers["width"])


def test_a_run_in_cohorts_ends_as_one_by_one_and_as_if_stopped(
    experiment_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        together = run(experiment_file, *WORDS)
    assert caplog.text.count(" wins") >= 2
    assert size(together) > (1, 1)
    alone = run(experiment_file, *WORDS, "clients_per_pass=off", f"output_dir={tmp_path / 'a'}")
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together)[name], tensor, atol=1e-4, rtol=0)
    for stop in (1, 3):
        stopped = tmp_path / f"stopped-{stop}"
        with ctrl_c(f"round {stop}: ", 1), pytest.raises(UserError, match="after round"):
            run(experiment_file, *WORDS, f"output_dir={stopped}")
        saved = weights(simulation.resume(stopped))
        assert all(torch.equal(saved[name], t) for name, t in weights(together).items())
    first, *_, last = read_rounds(together)
    assert last.test["loss"] < first.test["loss"]
    own = [scores["loss"] for scores in last.client_test.values()]
    assert own and all(loss > 0 for loss in own)


def test_layers_that_the_adapter_has_not_reached_stay_without_effect(
    experiment_file: Path, tmp_path: Path
) -> None:
    """With one trial that lasts for the whole run, the server evaluates the first part."""
    slow = ALGORITHM.replace("budget: 0.003", "budget: 1000")
    folder = run(experiment_file, *WORDS, slow, "rounds=2", f"output_dir={tmp_path / 'slow'}")
    depth, width = size(folder)
    for name, tensor in weights(folder).items():
        if name.endswith("bottleneck_up.weight"):
            reached = "layers.1." in name or depth > 1
            assert bool(tensor[:, :width].any()) == reached
            assert not tensor[:, width:].any()


def test_lora_grows_too(experiment_file: Path) -> None:
    folder = run(experiment_file, *WORDS, "adapter={lora: {r: 5}}")
    assert size(folder) > (1, 1)
    assert any(t.any() for name, t in weights(folder).items() if "lora_B" in name)


def test_the_preview_has_the_bytes_of_the_first_round_and_says_so(experiment_file: Path) -> None:
    preview = estimate.preview(load(experiment_file, WORDS))
    assert any("fedadapter grows the adapter" in remark for remark in preview.table.remarks)
    folder = run(experiment_file, *WORDS, "rounds=1")
    for row in read_ledger(folder):
        if row.kind == "train":
            expected = preview.traffic["train"][row.client]
            assert (row.down, row.up) == (expected.down, expected.up)


def test_a_trained_adapter_does_not_grow(experiment_file: Path) -> None:
    before = run(experiment_file, "rounds=1")
    changes = ["adapter.lora=null", f"adapter.from={before}", ALGORITHM]
    with pytest.raises(UserError, match=r"adapter.from names a trained one; leave it out, or"):
        run(experiment_file, *changes, f"output_dir={before}-2")


@pytest.mark.parametrize("command", [estimate.preview, simulation.run])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.validation=0"], r"validation rows, and there are none; hold some out"),
        (["adapter={ia3: {}}"], r"IA3 with these settings has no parts .* choose houlsby"),
        (["adapter={lora: {rank_pattern: {q_proj: 2}}}"], r"lora without rank_pattern and"),
        (["train.optimizer_state=keep"], r"set train.optimizer_state=reset"),
        (["aggregator=secagg"], r"needs each client's update"),
        (["compression.upload=[top_k]"], r"takes change"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    words: list[str],
    sentence: str,
    command: Callable[[Experiment], object],
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loaded(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("hanse.experiment.assembly.resources.load", loaded)
    with pytest.raises(UserError, match=sentence):
        command(load(experiment_file, [*WORDS, *words]))
