"""A run whose models changed since it was begun does not go on, and says so before it loads one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import StoppedError, UserError
from hanse.experiment.loading import load
from hanse.experiment.model_hashes import model_hashes
from hanse.learners.models.model_hash import hash_of
from hanse.simulation import run as simulation
from hanse.simulation.baselines import runs
from samples import ROOT
from stopping import ctrl_c

PART = ROOT / "tests" / "parts" / "mentors.py"
Hanse = Callable[..., Any]


def changed(model: Path, weights: str = "model.safetensors") -> None:
    """Change one number of a model's weights, and nothing else."""
    file = model / weights
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def models(tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path) -> dict[str, Path]:
    places = {"trained": tiny_llama, "mentor": tiny_gpt2, "own": tiny_gpt2}
    return {name: shutil.copytree(place, tmp_path / name) for name, place in places.items()}


@pytest.fixture
def file(experiment_file: Path, models: dict[str, Path]) -> Path:
    """An experiment with a mentor at each client, and one of its own at a client."""
    own = f"{{silo-1: {{models: {{mentor: {{model_name_or_path: {models['own']}}}}}}}}}"
    experiment_file.write_text(
        f"{experiment_file.read_text()}algorithm: '{PART}:Mentored'\nclients: {own}\n"
        f"models: {{mentor: {{model_name_or_path: {models['mentor']}, bf16: false, adapter: "
        "{lora: {r: 2}}}}\n"
    )
    return experiment_file


@pytest.mark.parametrize("name", ["trained", "mentor", "own"])
def test_a_stopped_run_does_not_go_on_with_another_model(
    hanse: Hanse,
    file: Path,
    models: dict[str, Path],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, former = tmp_path / "run", hash_of(str(models[name]))
    with ctrl_c("round 2: ", 2), pytest.raises(StoppedError):
        simulation.run(load(file, [f"model.model_name_or_path={models['trained']}"]))
    changed(models[name])
    monkeypatch.setattr(simulation, "simulate", lambda *_, **__: pytest.fail("it was loaded"))
    done = hanse("resume", folder)
    assert done.code == 2
    [sentence] = done.err.strip().splitlines()
    assert f"the files of {models[name]} had the hash {former} when {folder} was begun" in sentence
    assert f"have {hash_of(str(models[name]))} now; bring the former files back" in sentence


def test_a_stopped_run_does_not_go_on_from_another_adapter(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    words = "rounds=1", f"output_dir={tmp_path / 'first'}"
    first = simulation.run(load(experiment_file, words))
    with ctrl_c("round 2: ", 2), pytest.raises(StoppedError):
        simulation.run(load(experiment_file, [f"adapter={{from: {first}}}"]))
    changed(first / "adapter", "adapter_model.safetensors")
    done = hanse("resume", tmp_path / "run")
    assert done.code == 2 and f"the files of {first} had the hash" in done.err


def test_a_stopped_comparison_does_not_go_on_with_another_model(
    experiment_file: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    word = f"model.model_name_or_path={models['trained']}"
    (tmp_path / "baselines").mkdir()
    runs._begin(tmp_path / "baselines", load(experiment_file, [word]), [0])
    changed(models["trained"])
    with pytest.raises(UserError, match=f"the files of {models['trained']} had the hash"):
        runs.resume(tmp_path / "baselines")


def test_a_run_with_unchanged_models_goes_on(hanse: Hanse, file: Path, tmp_path: Path) -> None:
    with ctrl_c("round 2: ", 2), pytest.raises(StoppedError):
        simulation.run(load(file))
    done = hanse("resume", tmp_path / "run")
    assert done.code == 0, done.err


def test_models_of_silos_are_not_looked_for_at_the_server(
    file: Path, models: dict[str, Path]
) -> None:
    experiment = load(file, [f"model.model_name_or_path={models['trained']}"])
    assert [*model_hashes(experiment, clients=True)] == [*map(str, models.values())]
    shutil.rmtree(models["mentor"])
    trained = str(models["trained"])
    assert model_hashes(experiment, clients=False) == {trained: hash_of(trained)}
    with pytest.raises(UserError, match="there is no model"):
        model_hashes(experiment, clients=True)
