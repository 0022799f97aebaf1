"""Who reports progress, and that reporting changes nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.observability import progress
from hanse.observability.progress import report, track
from hanse.observability.steps import Activity, ClientReplies, Rounds, Step, Training, Work
from hanse.simulation import run as simulation


class Listener(logging.Handler):
    """Keeps what was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.steps.append(record.step)  # type: ignore[attr-defined]


@contextmanager
def _heard() -> Iterator[list[Step]]:
    listener = Listener()
    progress.log.addHandler(listener)
    progress.log.setLevel(logging.DEBUG)
    try:
        yield listener.steps
    finally:
        progress.log.setLevel(logging.WARNING)
        progress.log.removeHandler(listener)


def test_nothing_is_said_or_asked_for_when_nobody_listens() -> None:
    def measure(step: Training) -> Training:
        raise AssertionError("a loss was read for nobody")

    work = Training(("a",), total=3)
    assert list(track("abc", work, measure=measure)) == ["a", "b", "c"]


def test_a_step_is_no_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Listener()
    monkeypatch.setattr(logging.getLogger(), "handlers", [lines])
    with _heard() as steps:
        report(Training(("a",), 1, 2, 0.5))
    assert steps == [Training(("a",), 1, 2, 0.5)]
    assert not lines.steps


def test_track_reports_the_first_the_last_and_little_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter((1.0, 1.0, 1.1, 1.6, 1.6, 1.7, 1.8))  # two looks where a report is due, else one
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    losses = iter((1.0, 2.0, 3.0))
    work = Training(("a",), total=47)
    with _heard() as steps:
        tracked = track(range(0, 50, 10), work, 10, lambda step: replace(step, loss=next(losses)))
        assert list(tracked) == [0, 10, 20, 30, 40]
    assert steps == [
        Training(("a",), done, 47, loss) for done, loss in ((0, 1.0), (20, 2.0), (47, 3.0))
    ]


def test_what_a_run_reports(experiment_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with _heard() as steps:
        simulation.run(load(experiment_file))
    model = Path(load(experiment_file).model.model_name_or_path).name
    assert Work(Activity.LOADING_MODEL, model) in steps
    assert any(isinstance(step, Work) and step.activity is Activity.TOKENIZING for step in steps)
    rounds = [step for step in steps if isinstance(step, Rounds)]
    assert [(step.done, step.total) for step in rounds] == [(0, 3), (0, 3), (1, 3), (2, 3), (3, 3)]
    for clients in (("silo-1", "silo-2"), ("silo-3",)):
        training = [s for s in steps if isinstance(s, Training) and s.clients == clients]
        assert [(step.done, step.total) for step in training] == 3 * [(n, 3) for n in range(4)]
        assert all(step.loss is not None and step.loss > 0 for step in training if step.done)
    scored = [s for s in steps if isinstance(s, Work) and s.activity is Activity.SCORING]
    assert scored[:2] == [Work(Activity.SCORING, "validation", done, 20) for done in (0, 20)]
    replies = [step for step in steps if isinstance(step, ClientReplies)]
    trained = [step for step in replies if step.phase == "train"]
    assert [(step.done, step.total) for step in trained] == 3 * [(n, 3) for n in range(4)]
    last = rounds[-1].last
    assert last is not None and replies[-1].phase == "evaluate"
    assert last.down == trained[-1].down + replies[-1].down > 0
    assert last.up == trained[-1].up + replies[-1].up > 0


def test_reporting_changes_nothing(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = "adapter/adapter_model.safetensors"
    silent = simulation.run(load(experiment_file))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with _heard():
        heard = simulation.run(load(experiment_file, [f"output_dir={tmp_path / 'heard'}"]))
    assert (silent / weights).read_bytes() == (heard / weights).read_bytes()


def test_a_resumed_run_reports_what_it_did_before(experiment_file: Path) -> None:
    folder = simulation.run(load(experiment_file))
    with _heard() as steps:
        simulation.resume(folder)
    rounds = [step for step in steps if isinstance(step, Rounds)]
    assert [step.done for step in rounds] == [0, 0, 1, 2, 3]
    assert rounds[0].last is None
    assert all(step.last is not None and step.last.seconds > 0 for step in rounds[1:])
