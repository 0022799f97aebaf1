"""Silos that lack the base model are sent it over Flower; one of them is killed meanwhile."""

import time
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_ledger
from hanse.learners.models.model_hash import model_hash
from patience import patience
from real_federation import digest, flower_of, simulated
from standing_federation import THREE, StandingFederation

pytestmark = pytest.mark.end_to_end


def test_a_model_is_delivered_to_silos_and_to_one_that_is_killed_meanwhile(
    standing: StandingFederation, experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    words = ["rounds=2", "evaluation.clients=false", f"data.path={standing.parts.data}"]
    words.append("deployment.deliver_model=true")
    expected = simulated(experiment_file, tmp_path / "simulated", *words, "num_clients=3")
    home, model = standing.parts.home, model_hash(tiny_llama)
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
    for name in THREE:
        [folder] = (home / name / "models").iterdir()
        assert folder.name == model_hash(folder) == model
    kept = {file.stat().st_mtime_ns for file in (home / "silo-2" / "models" / model).iterdir()}
    assert {*came.values()} <= kept, "what had come was not sent again"
    size = sum(file.stat().st_size for file in tiny_llama.iterdir())
    records = [r for r in read_ledger(tmp_path / "deployed") if r.kind == "prepare"]
    assert {record.client for record in records} == {*THREE}
    assert all(record.down > size for record in records)
    assert "receiving the model" in standing.parts.said("silo-1")
