"""What is noted of the machine, with a GPU and without, and kept to by resume."""

import hashlib
import json
import threading
from pathlib import Path

import pytest
import torch

from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.journal import environment
from hanse.learners.models import precision
from hanse.learners.models.precision import ComputeMode, Fastest
from hanse.learners.models.settings import BaseModelSettings
from hanse.observability.paired_timing import Comparison, Measurement
from hanse.simulation import run as simulation


def test_speed_is_noted_beside_what_resume_keeps_to(tmp_path: Path) -> None:
    environment.note(tmp_path, "abc", {"peak_flops": 2.0})
    noted = json.loads((tmp_path / "machine.json").read_text())
    assert (noted["data"], noted["peak_flops"]) == ("abc", 2.0)
    assert noted["threads"] == torch.get_num_threads()
    environment.same_data(tmp_path, "abc")


def test_without_a_gpu_nothing_is_said_of_it() -> None:
    assert torch.cuda.is_initialized() or environment.peak_gpu_memory() is None
    assert torch.cuda.is_initialized() or environment.gpu_use() is None


def test_the_gpu_is_asked_for_memory_and_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 75)
    assert (environment.peak_gpu_memory(), environment.gpu_use()) == (3e9, 0.75)

    def missing() -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert (environment.peak_gpu_memory(), environment.gpu_use()) == (3e9, None)


def test_what_was_noted_of_the_precision_is_told(tmp_path: Path) -> None:
    environment.note(tmp_path, "abc", precision={"m": {"bf16": True}})
    assert environment.follow(tmp_path) == {"m": {"bf16": True}}
    noted = json.loads((tmp_path / "machine.json").read_text())
    for damaged in ({**noted, "precision": 3}, {k: noted[k] for k in noted if k != "precision"}):
        (tmp_path / "machine.json").write_text(json.dumps(damaged))
        assert environment.follow(tmp_path) == {}


def test_the_measurement_of_the_precision_is_noted(tmp_path: Path) -> None:
    """And run folders from before there was one are read."""
    comparison = Comparison("float32", "bfloat16", (0.2, 0.1), 2.0, 1.9, 2.1, 9)
    measured = {"m": Measurement((comparison,), threads=4, load=0.5)}
    environment.note(tmp_path, "abc", measured=measured)
    assert environment.read(tmp_path).measured == measured
    noted = json.loads((tmp_path / "machine.json").read_text())
    figures = noted["measured"]["m"]
    assert figures["comparisons"][0]["seconds"] == [0.2, 0.1]
    assert (figures["threads"], figures["load"]) == (4, 0.5)
    del noted["measured"]
    noted["precision"] = {"m": {"bf16": True, "plain_attention": False}}
    (tmp_path / "machine.json").write_text(json.dumps(noted))
    assert environment.read(tmp_path).measured == {}
    assert environment.follow(tmp_path) == noted["precision"]


def test_a_run_notes_the_measurement_of_its_models(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison("float32", "bfloat16", (0.2, 0.1), 2.0, 1.9, 2.1, 9)
    measurement = Measurement((comparison,), threads=1)
    fastest = Fastest(ComputeMode(False), ComputeMode(True), comparison, measurement)
    monkeypatch.setattr(precision, "measured", lambda *_: fastest)
    experiment = load(experiment_file, ["model.bf16=auto", "rounds=1", f"output_dir={tmp_path}/r"])
    record = environment.read(simulation.run(experiment))
    key = experiment.model.compute_mode_key
    assert record.measured == {key: measurement}
    assert record.precision[key] == {
        "bf16": True, "plain_attention": False, "products": "torch"
    }  # fmt: skip


def test_resume_computes_as_the_run_did(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it would now measure something else."""

    def run(name: str, stop: threading.Event | None = None) -> Path:
        changes = ["model.bf16=auto", "rounds=2", f"output_dir={tmp_path / name}"]
        return simulation.run(load(experiment_file, changes), stop=stop)

    def digest(folder: Path) -> str:
        tensors = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
        return hashlib.sha256(tensors).hexdigest()

    bfloat16 = Fastest(ComputeMode(True, plain_attention=True), ComputeMode(True))
    monkeypatch.setattr(precision, "measured", lambda *_: bfloat16)
    whole, stop = digest(run("whole")), threading.Event()
    stop.set()
    with pytest.raises(UserError, match="stopped after round 0"):
        run("stopped", stop)
    float32 = Fastest(ComputeMode(False), ComputeMode(False))
    monkeypatch.setattr(precision, "measured", lambda *_: float32)
    assert digest(simulation.resume(tmp_path / "stopped")) == whole
    assert digest(run("otherwise")) != whole


def test_a_model_that_computes_otherwise_is_loaded_anew(tiny_llama: Path) -> None:
    """As when runs that were made otherwise are gone on with, one after the other."""
    held, settings = Resources(), BaseModelSettings(str(tiny_llama), bf16=False, device="cpu")
    first = held.backbone(settings, "tokens", {})
    assert held.backbone(settings, "tokens", {}) is first and held.compute_modes == {
        settings.compute_mode_key: first.compute_mode
    }
    held.compute_modes[settings.compute_mode_key] = ComputeMode(True)
    assert held.backbone(settings, "tokens", {}).compute_mode == ComputeMode(True)
