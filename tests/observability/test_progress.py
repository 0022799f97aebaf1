"""Who reports progress, and that reporting changes nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.observability import progress
from hanse.observability.progress import Step, report, track
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
    def numbers() -> dict[str, float]:
        raise AssertionError("a loss was read for nobody")

    assert list(track("abc", "reading", 3, numbers=numbers)) == ["a", "b", "c"]


def test_a_step_is_no_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Listener()
    monkeypatch.setattr(logging.getLogger(), "handlers", [lines])
    with _heard() as steps:
        report("loading", 1, 2, loss=0.5)
    assert steps == [Step("loading", 1, 2, {"loss": 0.5})]
    assert not lines.steps


def test_track_reports_the_first_the_last_and_little_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter((1.0, 1.0, 1.1, 1.6, 1.6, 1.7, 1.8))  # two looks where a report is due, else one
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    asked = []

    def numbers() -> dict[str, float]:
        asked.append(1)
        return {"loss": float(len(asked))}

    with _heard() as steps:
        assert list(track(range(0, 50, 10), "scoring", 47, 10, numbers)) == [0, 10, 20, 30, 40]
    assert [step.done for step in steps] == [0, 20, 47]
    assert [step.numbers["loss"] for step in steps] == [1.0, 2.0, 3.0]


def test_what_a_run_reports(experiment_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with _heard() as steps:
        simulation.run(load(experiment_file))
    said = [step.what for step in steps]
    model = load(experiment_file).model.model_name_or_path
    for what in (f"loading {Path(model).name}", "tokenizing rows", "training silo-3"):
        assert what in said
    rounds = [step for step in steps if step.what == "rounds"]
    assert [(step.done, step.total) for step in rounds] == [(0, 3), (0, 3), (1, 3), (2, 3), (3, 3)]
    for who in ("2 clients", "silo-3"):
        training = [step for step in steps if step.what == f"training {who}"]
        assert [(step.done, step.total) for step in training] == 3 * [(n, 3) for n in range(4)]
        assert all(step.numbers["loss"] > 0 for step in training if step.done)
    scored = [(step.done, step.total) for step in steps if step.what == "scoring validation"]
    assert scored[:2] == [(0, 20), (20, 20)]
    answered = [step for step in steps if step.what == "clients train"]
    assert [(step.done, step.total) for step in answered] == 3 * [(n, 3) for n in range(4)]
    sent = rounds[-1].numbers
    asked = [step for step in steps if step.what in ("clients train", "clients evaluate")][-1:]
    asked += [answered[-1]]
    for way in ("down", "up"):
        assert sent[way] == sum(step.numbers[way] for step in asked)


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
    rounds = [step for step in steps if step.what == "rounds"]
    assert [step.done for step in rounds] == [0, 0, 1, 2, 3]
    assert not rounds[0].numbers and all(step.numbers["seconds"] > 0 for step in rounds[1:])
