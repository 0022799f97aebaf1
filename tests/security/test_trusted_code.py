"""A folder from somebody else runs no code; one's own runs go on without a word."""

import json
import os
import py_compile
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse import registry
from hanse.errors import UserError
from hanse.experiment.loading import load, load_left
from hanse.journal import yaml_text
from hanse.security import trusted_code

MINE = """
from dataclasses import dataclass
from pathlib import Path
from hanse.{module} import {base}
Path({marker!r}).write_text("ran")

@dataclass(frozen=True)
class Mine({base}):
    'The same under another name.'
"""
PLACES = {
    "algorithm": ("federation.algorithms.fedavg", "FedAvg"),
    "aggregator": ("federation.aggregators.mean", "Mean"),
    "objective": ("learners.objectives.classify", "Classify"),
    "partition": ("data.partitioners.iid", "Iid"),
    "task": ("evaluation.classification", "Classification"),
    "tracker": ("journal.trackers.tensorboard", "TensorBoard"),
}
Hanse = Callable[..., Any]


def code(file: Path, marker: Path, place: str = "algorithm") -> str:
    """A part in a file that leaves a mark when it is run; its name."""
    module, base = PLACES[place]
    file.write_text(MINE.format(module=module, base=base, marker=str(marker)))
    return f"{file}:Mine"


def planted(folder: Path, name: str, place: str) -> None:
    """Let a run's experiment name a part."""
    for file in (folder / "experiment.yaml", folder / "baselines.yaml"):
        if not file.exists():
            continue
        values = yaml.safe_load(file.read_text())
        if place == "task":
            values["evaluation"]["tasks"] = [name]
        elif place == "tracker":
            values["report_to"] = [name]
        elif place == "partition":
            values["data"]["partition"] = {name: {}}
        else:
            values[place] = {name: {}}
        file.write_text(yaml_text.dump(values))


@pytest.fixture
def foreign(experiment_file: Path, hanse: Hanse, tmp_path: Path) -> Path:
    """A finished run's folder, as it may be sent around."""
    assert hanse("run", experiment_file, "rounds=1").code == 0
    return Path(shutil.move(tmp_path / "run", tmp_path / "foreign"))


WORDS = {
    "evaluate": ["evaluate", "{}"],
    "chat": ["chat", "{}", "--prompt", "Review: good"],
    "resume": ["resume", "{}"],
    "check": ["check", "{}/experiment.yaml"],
    "run": ["run", "{}/experiment.yaml", "rounds=1", "output_dir={}-2"],
    "baselines": ["baselines", "{}/experiment.yaml", "--seeds", "0", "output_dir={}-2"],
    "server": ["server", "{}/experiment.yaml"],
}


@pytest.mark.parametrize("place", [*PLACES])
def test_a_foreign_folder_runs_nothing(
    foreign: Path, hanse: Hanse, tmp_path: Path, place: str
) -> None:
    marker = tmp_path / "marker"
    planted(foreign, code(foreign / "evil.py", marker, place), place)
    for words in WORDS.values():
        done = hanse(*(word.format(foreign) for word in words))
        assert done.code == 2 and "add --trust to run it" in done.err, words
        assert not marker.exists(), words
    shutil.copytree(foreign, tmp_path / "again")
    for words in (["report", foreign], ["compare", foreign, tmp_path / "again"]):
        assert hanse(*words).code == 0
        assert not marker.exists(), words


@pytest.mark.parametrize("words", ["evaluate", "chat", "resume", "check"])
def test_it_runs_if_the_user_says_so(
    foreign: Path, hanse: Hanse, tmp_path: Path, words: str
) -> None:
    """So the attack would work; and then it is one's own."""
    marker = tmp_path / "marker"
    planted(foreign, code(foreign / "evil.py", marker), "algorithm")
    said = [word.format(foreign) for word in WORDS[words]]
    assert hanse(*said, "--trust").code == 0
    assert marker.exists()
    trusted_code._granted.clear()
    marker.unlink()
    assert hanse(*said).code == 0 and marker.exists()


def test_a_foreign_ladder_runs_nothing(experiment_file: Path, hanse: Hanse, tmp_path: Path) -> None:
    marker, baselines = tmp_path / "marker", tmp_path / "run"
    words = ["rounds=1", "train.max_steps=1", "num_clients=2"]
    assert hanse("baselines", experiment_file, *words, "--seeds", "0").code == 0
    variant = baselines / "seed-0" / "federated"
    planted(variant, code(tmp_path / "evil.py", marker), "algorithm")
    assert "add --trust" in hanse("resume", baselines).err and not marker.exists()
    planted(baselines, code(tmp_path / "evil.py", marker), "algorithm")
    assert "add --trust" in hanse("resume", baselines).err and not marker.exists()


def test_ones_own_run_goes_on_without_a_word(
    experiment_file: Path, hanse: Hanse, tmp_path: Path
) -> None:
    marker, name = tmp_path / "marker", code(tmp_path / "mine.py", tmp_path / "marker")
    assert hanse("run", experiment_file, f"algorithm={name}", "rounds=1").code == 0
    trusted_code._granted.clear()  # as in another process
    marker.unlink()
    assert hanse("resume", tmp_path / "run").code == 0 and marker.exists()
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "# changed\n")
    trusted_code._granted.clear()
    marker.unlink()
    done = hanse("evaluate", tmp_path / "run")
    assert "mine.py is Python code that has changed since you ran it" in done.err
    assert done.code == 2 and not marker.exists()
    assert (
        hanse("run", experiment_file, f"algorithm={name}", f"output_dir={tmp_path / 'b'}").code == 0
    )
    trusted_code._granted.clear()
    assert hanse("evaluate", tmp_path / "run").code == 0


def test_a_word_of_the_command_line_names_ones_own_file(
    foreign: Path, hanse: Hanse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not one beside the foreign experiment."""
    marker = tmp_path / "marker"
    code(foreign / "evil.py", marker, "task")
    code(tmp_path / "mine.py", marker, "task")
    monkeypatch.chdir(tmp_path)
    done = hanse("evaluate", foreign, "evaluation.tasks=['evil.py:Mine']")
    assert done.code == 2 and "add --trust" in done.err and not marker.exists()
    assert hanse("evaluate", foreign, "evaluation.tasks=['mine.py:Mine']").code == 0
    assert marker.exists()


def test_what_python_has_compiled_is_not_run(tmp_path: Path) -> None:
    """An import takes __pycache__/mine.cpython-….pyc, whatever the .py says."""
    marker, other = tmp_path / "marker", tmp_path / "other"
    name = code(tmp_path / "mine.py", other)
    code(tmp_path / "evil.py", marker)
    tag = Path(py_compile.compile(str(tmp_path / "evil.py"), doraise=True)).name
    compiled = tmp_path / "__pycache__" / tag.replace("evil", "mine")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tmp_path / "evil.py"), str(compiled), invalidation_mode=mode)
    trusted_code.grant(tmp_path / "mine.py")
    registry.build("federation/algorithms", name)
    assert other.exists() and not marker.exists()


def test_a_file_that_changes_during_a_run_stays_as_it_was(tmp_path: Path) -> None:
    marker, other = tmp_path / "marker", tmp_path / "other"
    name = code(tmp_path / "mine.py", other)
    with trusted_code.granting():
        registry.build("federation/algorithms", name)
    code(tmp_path / "mine.py", marker)
    registry.build("federation/algorithms", name)
    assert not marker.exists()


def record() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "hanse" / "trusted.json"


def test_the_list_is_the_users_alone(tmp_path: Path) -> None:
    name = code(tmp_path / "mine.py", tmp_path / "marker")
    trusted_code.grant(tmp_path / "mine.py")
    assert record().stat().st_mode & 0o777 == 0o600
    assert record().parent.stat().st_mode & 0o777 == 0o700
    assert [*json.loads(record().read_text())] == [str(tmp_path / "mine.py")]
    trusted_code._granted.clear()
    registry.build("federation/algorithms", name)
    for place in (record(), record().parent):
        trusted_code._granted.clear()
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        with pytest.raises(UserError, match="add --trust"):
            registry.build("federation/algorithms", name)
        place.chmod(mode)
    record().write_text("[")
    with pytest.raises(UserError, match="add --trust"):
        registry.build("federation/algorithms", name)
    (tmp_path / "gone.py").touch()
    trusted_code.grant(tmp_path / "gone.py")
    (tmp_path / "gone.py").unlink()
    trusted_code.grant(tmp_path / "mine.py")
    assert [*json.loads(record().read_text())] == [str(tmp_path / "mine.py")]


def test_without_a_list_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    name = code(tmp_path / "mine.py", tmp_path / "marker")
    trusted_code.grant(tmp_path / "mine.py")
    assert registry.build("federation/algorithms", name)
    assert "to go on with this run, add --trust" in caplog.text


def test_an_experiment_that_is_given_by_hand_may_name_code(
    experiment_file: Path, tmp_path: Path
) -> None:
    """Whatever it is called; one that a run has left may not."""
    marker = tmp_path / "marker"
    name = code(tmp_path / "mine.py", marker)
    file = experiment_file.rename(tmp_path / "experiment.yaml")
    file.write_text(file.read_text() + f"algorithm: {{{name}: {{}}}}\n")
    for given in (file, tmp_path / "link.yaml"):
        if given != file:
            given.symlink_to(file)
        (tmp_path / "machine.json").touch()
        with pytest.raises(UserError, match="add --trust"):
            load(given)
        with pytest.raises(UserError, match="add --trust"):
            load_left(given)
        assert not marker.exists()
    (tmp_path / "machine.json").unlink()
    load(file)
    assert marker.exists()
