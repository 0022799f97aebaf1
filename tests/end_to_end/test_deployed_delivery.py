"""Silos tune an emulator that they are sent over Flower; one of them is killed meanwhile."""

import time
from pathlib import Path

import pytest

import tiny_models
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.learners.models.model_hash import model_hash
from hanse.planning import emulator as planning
from patience import patience
from real_federation import digest, flower_of, simulated
from standing_federation import THREE, StandingFederation

pytestmark = pytest.mark.end_to_end


def test_an_emulator_is_delivered_to_silos_and_to_one_that_is_killed_meanwhile(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path
) -> None:
    whole, emulator = tmp_path / "whole", tmp_path / "emulator"
    tiny_models.save_llama(whole, layers=5)
    planning.make(str(whole), emulator, 1, 1, {"layer_drop": {"keep": 1}}, None)
    words = ["rounds=2", "evaluation.clients=false", f"data.path={standing.parts.data}"]
    words += ["algorithm=fedot", "deployment.deliver_model=true"]
    words.append(f"model.model_name_or_path={emulator}")
    words.append(f"models={{whole: {{model_name_or_path: {whole}, bf16: false}}}}")
    words.append("adapter={lora: {r: 4, layers_to_transform: [0, 2], target_modules: [q_proj]}}")
    expected = simulated(experiment_file, tmp_path / "simulated", *words, "num_clients=3")
    home, model = standing.parts.home, model_hash(emulator)
    parts = home / "silo-2" / "models" / f"{model}.parts"
    standing.begin(experiment_file, tmp_path / "deployed", *words)
    end = time.monotonic() + patience(300)
    while not (parts.is_dir() and [*parts.iterdir()]):
        assert time.monotonic() < end, standing.parts.said("silo-2")
        time.sleep(0.01)
    standing.parts.kill("silo-2")
    came = {file.name: file.stat().st_mtime_ns for file in parts.iterdir()}
    assert came and not (home / "silo-2" / "models" / model).exists()
    while flower_of(home / "silo-2" / "flower"):
        assert time.monotonic() < end
        time.sleep(0.1)
    standing.silo("silo-2")
    standing.done()
    assert digest(tmp_path / "deployed") == expected
    assert any(n.startswith("whole.") for n in read_rounds(tmp_path / "deployed")[-1].test)
    for name in THREE:
        [folder] = (home / name / "models").iterdir()
        assert folder.name == model_hash(folder) == model
    kept = {file.stat().st_mtime_ns for file in (home / "silo-2" / "models" / model).iterdir()}
    assert {*came.values()} <= kept, "what had come was not sent again"
    size = sum(file.stat().st_size for file in emulator.iterdir())
    records = [r for r in read_ledger(tmp_path / "deployed") if r.kind == "prepare"]
    assert {record.client for record in records} == {*THREE}
    assert all(record.down > size for record in records)
    assert "receiving the model" in standing.parts.said("silo-1")
