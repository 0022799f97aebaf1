"""The judge of run folders finds each kind of violation, and none in a clean run."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from folders import write_lines
from hanse.experiment import loading
from hanse.experiment.assembly.assemble import simulate
from hanse.simulation import run as simulation
from history import History, replayed

NAMES = ["a", "b", "c"]
ROUNDS = 3

Rows = list[dict[str, Any]]


def _forge(folder: Path, upto: int = ROUNDS) -> tuple[Rows, Rows]:
    """A clean run of silos a, b and c whose weights are 1, 2 and 4."""
    weights = dict(zip(NAMES, (1.0, 2.0, 4.0), strict=True))
    metrics: Rows = [{"round": 0}]
    ledger: Rows = []
    for number in range(1, upto + 1):
        metrics.append({"round": number, "clients": [*NAMES], "weight": 7.0})
        ledger += [
            {"round": number, "client": name, "kind": "train", "weight": weight}
            for name, weight in weights.items()
        ]
    for number in range(upto + 1):
        _commit(folder, number)
    _write(folder, metrics, ledger)
    return metrics, ledger


def _commit(folder: Path, number: int, state: str = "") -> None:
    (folder / "state").mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{number}{state}".encode()).hexdigest()
    (folder / "state" / f"{number:05d}-{digest}.safetensors").write_bytes(b"")


def _write(folder: Path, metrics: Rows, ledger: Rows) -> None:
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "ledger.jsonl", ledger)


def test_a_clean_history_has_no_violation(tmp_path: Path) -> None:
    history = History(tmp_path, NAMES, 2)
    for number in range(ROUNDS + 1):
        _forge(tmp_path, number)
        history.look()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "clie')  # of a server that was killed
    assert history.judge(ROUNDS) == []
    assert history.counted() == dict.fromkeys((1, 2, 3), NAMES)


def _change(number: int, **values: Any) -> Callable[[Rows, Rows], None]:
    return lambda metrics, ledger: metrics[number].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change(2, round=1), "the rounds are [0, 1, 1, 3]"),
        (_change(2, clients=["a", "b", "b", "c"]), "counts a silo twice"),
        (_change(2, clients=["a", "b", "x"]), "counts ['x'], who take no part"),
        (_change(2, clients=["a"], weight=1.0), "counts 1 updates, and the quorum is 2"),
        (_change(2, weight=9.0), "not that of its updates, each once"),
        (lambda metrics, ledger: ledger.pop(0), "counts ['a'], and no answer of theirs came"),
        (lambda metrics, ledger: ledger[0].update(late=1), "counts ['a'], and no answer"),
        (lambda metrics, ledger: ledger[0].update(error="no"), "counts ['a'], and no answer"),
    ],
)
def test_each_violation_of_a_folder_is_found(
    tmp_path: Path, change: Callable[[Rows, Rows], None], said: str
) -> None:
    metrics, ledger = _forge(tmp_path)
    change(metrics, ledger)
    _write(tmp_path, metrics, ledger)
    broken = History(tmp_path, NAMES, 2).judge(ROUNDS)
    assert any(said in one for one in broken), broken


def _undo(folder: Path) -> None:
    for file in (folder / "state").glob("00003-*"):
        file.unlink()


def _lose(folder: Path) -> None:
    for file in (folder / "state").glob("*"):
        file.unlink()


def _again(folder: Path) -> None:
    _undo(folder)
    _commit(folder, 3, "otherwise")


def _rewrite(folder: Path) -> None:
    text = (folder / "ledger.jsonl").read_text()
    (folder / "ledger.jsonl").write_text(text.replace('"weight": 4.0', '"weight": 5.0'))


@pytest.mark.parametrize(
    ("undo", "said"),
    [
        (_undo, "round 3 was committed, and the newest is 2 now"),
        (_lose, "round 3 was committed, and no checkpoint is left"),
        (_again, "round 3 was committed with two states"),
        (_rewrite, "the lines of round 1 in ledger.jsonl were changed"),
    ],
)
def test_a_committed_round_that_is_undone_is_found(
    tmp_path: Path, undo: Callable[[Path], None], said: str
) -> None:
    _forge(tmp_path)
    history = History(tmp_path, NAMES, 2)
    history.look()
    undo(tmp_path)
    history.look()
    assert said in history.broken


def test_a_replay_tells_who_was_counted(experiment_file: Path, tmp_path: Path) -> None:
    words = ["clients_per_pass=off", "rounds=2"]
    folder = simulation.run(loading.load(experiment_file, words))
    file = folder / "adapter" / "adapter_model.safetensors"
    every = {
        row["round"]: row["clients"]
        for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()[1:])
    }
    same = replayed(experiment_file, tmp_path / "same", every, *words)
    assert same == hashlib.sha256(file.read_bytes()).hexdigest()
    fewer = {**every, 2: every[2][:-1]}
    assert replayed(experiment_file, tmp_path / "fewer", fewer, *words) != same


@pytest.mark.parametrize("silent", range(4))
def test_a_replay_counts_all_but_those_who_are_silent(
    experiment_file: Path, tmp_path: Path, silent: int
) -> None:
    words = ["clients_per_pass=off", "rounds=1", "num_clients=4"]
    names = [profile.name for profile in simulate(loading.load(experiment_file, words)).profiles]
    counted = [name for name in names if name != names[silent]]
    replayed(experiment_file, tmp_path / "again", {1: counted}, *words)
    rows = map(json.loads, (tmp_path / "again" / "metrics.jsonl").read_text().splitlines())
    assert [row["clients"] for row in rows if row["round"]] == [counted]
