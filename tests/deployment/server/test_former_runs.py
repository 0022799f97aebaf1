"""A server that goes on with a run folder, of an earlier version too, with the same settings."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from hanse.deployment.server import serve
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.learners.models.model_hash import model_hash


def simulated(experiment_file: Path, *words: str) -> Simulation:
    return simulate(load(experiment_file, ["clients_per_pass=off", *words]), only=())


def test_settings_that_a_former_version_lacked_have_their_defaults(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder, made = tmp_path / "run", simulated(experiment_file)
    serve._journal(folder, made).close()
    file = folder / "experiment.yaml"
    former = file.read_text().replace("models: {}\n", "").replace("  public: null\n", "")
    assert former != file.read_text()
    file.write_text(former)
    with closing(serve._journal(folder, made)) as journal:
        assert journal.folder == folder
    assert file.read_text() == former


def test_another_base_model_under_the_same_path_is_refused(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    folder, made = tmp_path / "run", simulated(experiment_file, f"model.model_name_or_path={model}")
    serve._journal(folder, made).close()
    serve._journal(folder, made).close()
    former = model_hash(model)
    template = model / "tokenizer_config.json"
    template.write_text(template.read_text().replace("{", '{"added": 1, ', 1))
    said = rf"{model} had the hash {former} .*, and have {model_hash(model)} now"
    with pytest.raises(UserError, match=said):
        serve._journal(folder, made)
    machine = folder / "machine.json"
    noted = json.loads(machine.read_text())
    assert noted.pop("models") == {str(model): former}
    machine.write_text(json.dumps(noted))  # as an earlier version wrote it
    serve._journal(folder, made).close()


def test_other_settings_are_refused_by_name(experiment_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    serve._journal(folder, simulated(experiment_file)).close()
    with pytest.raises(UserError, match=r"has a run with other settings \(rounds, train\)"):
        serve._journal(folder, simulated(experiment_file, "rounds=9", "train.max_steps=2"))
