"""Offsite tuning between machines: silos are sent an emulator, and no layer that it lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from hanse.experiment.loading import load
from hanse.federation.delivery import files
from hanse.journal.run_folder import read_rounds
from hanse.learners.models.model_hash import model_hash
from hanse.planning import emulator as planning
from linked_silos import WorkerEngine, served, silo
from real_federation import digest, simulated

LAYERS = 7
COMPRESSORS: dict[str, Any] = {
    "layer_drop": {"layer_drop": {"keep": 1}},
    "low_rank": {"low_rank": {"energy": 0.5}},
    "quantized": {"quantized": {"bits": "int8"}},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    tiny_models.save_llama(folder, layers=LAYERS)
    return folder


@pytest.fixture
def made(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make an emulator of two bottom and two top layers by a compressor."""

    def make(compressor: str) -> Path:
        planning.make(str(whole), tmp_path / "emulator", 2, 2, COMPRESSORS[compressor], None)
        return tmp_path / "emulator"

    return make


def _canaries(whole: Path) -> dict[int, list[bytes]]:
    """By layer, the first numbers of each of its matrices."""
    found: dict[int, list[bytes]] = {layer: [] for layer in range(LAYERS)}
    for name, tensor in load_file(whole / "model.safetensors").items():
        if name.startswith("model.layers.") and tensor.dim() > 1:
            start = tensor.flatten()[:16].view(torch.uint8).numpy().tobytes()
            found[int(name.split(".")[2])].append(start)
    return found


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_silos_tune_an_emulator_that_they_are_sent_and_see_no_other_layer(
    experiment_file: Path,
    review_file: Path,
    tmp_path: Path,
    whole: Path,
    made: Callable[[str], Path],
    compressor: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "CHUNK", 10**9)  # or a canary could be in two chunks
    emulator = made(compressor)
    last = 4 if compressor == "layer_drop" else 6
    words = [
        *("num_clients=2", "rounds=1", "deployment.deliver_model=true", "algorithm=fedot"),
        f"model.model_name_or_path={emulator}",
        f"models={{whole: {{model_name_or_path: {whole}, bf16: false}}}}",
        f"adapter={{lora: {{r: 2, layers_to_transform: [0, 1, {last - 1}, {last}], "
        "target_modules: [q_proj, v_proj]}}",
    ]
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    engine = WorkerEngine(
        *(
            silo(name, review_file, tmp_path / name, delivered_models="allow")
            for name in ("silo-1", "silo-2")
        )
    )
    words += ["clients_per_pass=off", f"output_dir={tmp_path / 'deployed'}"]
    folder = served(load(experiment_file, words), engine)
    assert digest(folder) == expected
    assert any(name.startswith("whole.") for name in read_rounds(folder)[-1].test)
    [model] = (tmp_path / "silo-1" / "models").iterdir()
    assert (model / "emulator.json").read_bytes() == (emulator / "emulator.json").read_bytes()
    assert model_hash(model) == model_hash(emulator) != model_hash(whole)

    crossed = b"".join([*(body for _, body in engine.sent), *engine.replies])
    record = json.loads((emulator / "emulator.json").read_text())
    ends = {0, 1, LAYERS - 2, LAYERS - 1}
    kept = {*record["layers"]} if compressor == "layer_drop" else ends
    assert len(kept) == (5 if compressor == "layer_drop" else 4)
    for layer, starts in _canaries(whole).items():
        assert len(starts) == 7
        assert all((start in crossed) == (layer in kept) for start in starts), layer
    assert str(whole).encode() not in crossed and str(emulator).encode() not in crossed
