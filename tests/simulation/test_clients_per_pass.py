"""Runs whose clients train together: the same result, and the same again after a stop."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.server import rounds
from hanse.journal import run_folder, yaml_text
from hanse.learners.batched_clients import size as client_numbers
from hanse.simulation import clients_per_pass
from hanse.simulation import run as simulation
from hanse.simulation.clients_per_pass import decided
from hanse.simulation.in_process import in_process

TRAIN = "train={learning_rate: 0.01, max_steps: 2, lr_scheduler_type: cosine}"


def run(file: Path, folder: Path, *words: str) -> Path:
    return simulation.run(load(file, [*words, f"output_dir={folder}"]))


def adapter(folder: Path) -> Mapping[str, Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def digest(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("algorithm={fedprox: {mu: 0.5}}", "fraction_train=0.7"),
        ("clients={silo-2: {train: {max_steps: 5, learning_rate: 0.02}}}",),
        (
            "train.optimizer_state=keep",
            "algorithm={fedopt: {optimizer: momentum, learning_rate: 0.5}}",
        ),
    ],
)
def test_the_same_as_one_after_another(
    experiment_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    alone = adapter(run(experiment_file, tmp_path / "alone", TRAIN, "clients_per_pass=off", *words))
    for size in (1, 2, 8):
        folder = run(
            experiment_file, tmp_path / str(size), TRAIN, f"clients_per_pass={size}", *words
        )
        for name, tensor in adapter(folder).items():
            # Adam moves an entry whose gradient is nearly 0 by what rounding has made of that.
            torch.testing.assert_close(tensor, alone[name], atol=5e-5, rtol=0)


def test_auto_is_decided_once_and_written_down(experiment_file: Path, tmp_path: Path) -> None:
    folder = run(experiment_file, tmp_path / "first", "clients_per_pass=auto")
    written, _ = yaml_text.read(folder / "experiment.yaml")
    assert written["clients_per_pass"] == "off" or isinstance(written["clients_per_pass"], int)
    again = run(folder / "experiment.yaml", tmp_path / "again")
    assert digest(again) == digest(folder)


def test_a_resumed_run_ends_the_same(experiment_file: Path, tmp_path: Path) -> None:
    words = ("clients_per_pass=2", "train.optimizer_state=keep")
    whole = run(experiment_file, tmp_path / "whole", *words)
    experiment = load(experiment_file, [*words, f"output_dir={tmp_path / 'cut'}"])
    made = decided(simulate(experiment))
    cut = run_folder.Journal.create(tmp_path / "cut", yaml_text.dump(made.experiment.resolved()))
    for record in rounds(made.run(cut, in_process(made, cut.folder))):
        if record.round == 1:
            break
    cut.close()
    assert digest(simulation.resume(tmp_path / "cut")) == digest(whole)


def test_a_pass_is_no_larger_than_the_memory(
    experiment_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(client_numbers, "free_memory", lambda device: 1)
    made = decided(simulate(load(experiment_file, ["clients_per_pass=8"])))
    assert made.experiment.clients_per_pass == 1
    assert "1 clients at a time instead of 3" in caplog.text


@pytest.mark.parametrize(("fastest", "taken"), [(1, "off"), (2, 2)])
def test_auto_takes_no_pass_of_one_client(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, fastest: int, taken: Any
) -> None:
    monkeypatch.setattr(clients_per_pass, "best", lambda members, steps: fastest)
    made = decided(simulate(load(experiment_file, ["clients_per_pass=auto"])))
    assert made.experiment.clients_per_pass == taken


@pytest.mark.parametrize("asked", ["auto", 3])
def test_what_one_pass_cannot_do_is_done_one_by_one(
    experiment_file: Path, tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanse.learners.objectives.classify.Classify.batchable", False)
    made = decided(simulate(load(experiment_file, [f"clients_per_pass={asked}"])))
    assert made.experiment.clients_per_pass == "off"


def test_the_round_says_where_its_time_went(experiment_file: Path, tmp_path: Path) -> None:
    for size in ("off", "2"):
        folder = run(experiment_file, tmp_path / size, f"clients_per_pass={size}")
        rows = [row for row in run_folder.read_ledger(folder) if row.kind == "train"]
        for row in rows:
            parts = [
                row.numbers[f"{name}_seconds"]
                for name in ("data", "forward", "backward", "optimizer")
            ]
            assert min(parts) > 0 and sum(parts) == pytest.approx(row.numbers["seconds"])
