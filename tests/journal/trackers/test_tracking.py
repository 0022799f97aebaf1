"""What trackers are told of a run, and that none of them can stop it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly import execute
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.journal.tracking import (
    Following,
    Metrics,
    Tracked,
    Tracker,
    flat,
    following,
    refuse_missing,
)
from hanse.simulation import run as simulation

Told = tuple[int, Metrics, float]


@dataclass
class Memo(Following):
    """Remembers what it was told; fails from a round on, if asked to."""

    last: int = -1
    fails_at: int = 99
    told: list[Told] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        if round >= self.fails_at:
            raise ConnectionError("the line is cut\nfor good")
        self.told.append((round, metrics, time))

    def close(self, finished: bool) -> None:
        self.ended.append(finished)


@dataclass(frozen=True)
class Notes(Tracker):
    """Hands out a memo."""

    memo: Memo = field(default_factory=Memo)
    needs: tuple[str, ...] = ()
    runs: list[Tracked] = field(default_factory=list)

    @property
    def packages(self) -> tuple[str, ...]:
        return self.needs

    def open(self, run: Tracked) -> Following:
        if self.memo.fails_at < 0:
            raise OSError("no server")
        self.runs.append(run)
        return self.memo


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_every_round_is_told_once_with_all_its_numbers(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    monkeypatch.setattr(execute, "build_trackers", lambda _: {"notes": notes})
    run = simulation.run(load(experiment_file))
    assert [number for number, _, _ in notes.memo.told] == [0, 1, 2, 3]
    assert notes.memo.ended == [True]
    for (number, metrics, time), row in zip(notes.memo.told, read_rounds(run), strict=True):
        assert time == row.time
        assert metrics["bytes/up"] == row.bytes.up
        assert metrics["validation/accuracy"] == row.validation["accuracy"]
        own = {
            f"clients/{sent.client}/loss": sent.loss
            for sent in read_ledger(run)
            if (sent.round, sent.kind) == (number, "train")
        }
        assert len(own) == (3 if number else 0)
        assert {k: v for k, v in metrics.items() if k.startswith("clients/")} == own
        assert all(isinstance(value, int | float) for value in metrics.values())
    last = notes.memo.told[-1][1]
    assert {"test/accuracy", "client_test/silo-1/accuracy", "seconds/forward"} <= last.keys()
    [seen] = notes.runs
    assert (seen.name, seen.settings["train.learning_rate"]) == ("run", 0.01)


def test_a_resumed_run_is_known_again_and_told_from_where_the_tool_stands(
    folder: Path, commit: Callable[[int], None]
) -> None:
    first, second = Notes(), Notes(Memo(last=0))
    with pytest.raises(KeyboardInterrupt), following({"notes": first}, folder) as tell:
        commit(0)
        tell()
        commit(1)  # and the run is stopped before it can tell
        raise KeyboardInterrupt
    assert [number for number, _, _ in first.memo.told] == [0] and first.memo.ended == [False]
    with following({"notes": second}, folder) as tell:
        commit(2)
        tell()
    assert [number for number, _, _ in second.memo.told] == [1, 2] and second.memo.ended == [True]
    assert first.runs[0].id == second.runs[0].id


def test_what_was_not_told_is_told_at_the_end(folder: Path, commit: Callable[[int], None]) -> None:
    notes = Notes()
    commit(0)
    with following({"notes": notes}, folder):
        pass
    assert [number for number, _, _ in notes.memo.told] == [0]


def test_a_tracker_that_fails_is_given_up_with_one_warning(
    folder: Path, commit: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    dead, dying, well = Notes(Memo(fails_at=-1)), Notes(Memo(fails_at=1)), Notes()
    with following({"dead": dead, "dying": dying, "well": well}, folder) as tell:
        for number in range(3):
            commit(number)
            tell()
    assert [len(notes.memo.told) for notes in (dead, dying, well)] == [0, 1, 3]
    assert well.memo.ended == [True] and not dying.memo.ended
    assert _warnings(caplog) == [
        "dead no longer follows this run, which goes on: OSError: no server",
        "dying no longer follows this run, which goes on: ConnectionError: the line is cut",
    ]


def test_a_run_without_a_round_has_nothing_to_tell(folder: Path) -> None:
    notes = Notes()
    with following({"notes": notes}, folder) as tell:
        tell()
    assert not notes.memo.told and notes.memo.ended == [True]


def test_no_tracker_leaves_no_trace(folder: Path, commit: Callable[[int], None]) -> None:
    before = {path.name for path in folder.iterdir()}
    with following({}, folder) as tell:
        tell()
    assert {path.name for path in folder.iterdir()} == before


def test_a_missing_package_is_named_before_anything_is_done(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r'report_to names notes.*pip install "hanse\[notes\]"'):
        refuse_missing({"notes": Notes(needs=("json", "no_such_package"))})
    refuse_missing({"notes": Notes(needs=("json",))})
    absent = {"notes": Notes(needs=("no_such_package",))}
    monkeypatch.setattr(simulation, "build_trackers", lambda _: absent)
    with pytest.raises(UserError, match="no_such_package is missing"):
        simulation.run(load(experiment_file))
    assert not (experiment_file.parent / "run").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("none", []),
        (None, []),
        ("mlflow", [{"mlflow": {"experiment": "hanse"}}]),
        (["tensorboard"], [{"tensorboard": {}}]),
        ({"mlflow": {"experiment": "mine"}}, [{"mlflow": {"experiment": "mine"}}]),
    ],
)
def test_the_ways_to_name_trackers(written: object, meant: list[object]) -> None:
    resolved = Experiment.model_validate({"report_to": written}).resolved()
    assert resolved["report_to"] == meant
    assert Experiment.model_validate(resolved).resolved() == resolved


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("report_to=tensorbord", "did you mean 'tensorboard'"),
        ("report_to=[mlflow,mlflow]", "names a tracker twice"),
        ("report_to={mlflow: {experimnt: x}}", "did you mean 'experiment'"),
        ("report_to=3", "report_to is 3"),
    ],
)
def test_a_wrong_tracker_is_a_sentence(experiment_file: Path, words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(experiment_file, [words])


def test_flat_names_every_leaf() -> None:
    nested = {"a": 1, "b": {"c": {"d": [2]}, "e": {}}, 3: None}
    assert flat(nested) == {"a": 1, "b.c.d": [2], "b.e": {}, "3": None}
