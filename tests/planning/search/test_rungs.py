"""The rungs of a search: trials, stopped in the midst of a rung, end as without the stop."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from hanse.errors import StoppedError
from hanse.planning.search import rungs
from hanse.planning.search.settings import Choice, Setting
from hanse.planning.search.trial import SiloScore

pytest.importorskip("optuna")

TRIALS, FINAL = 10, 4  # all, and those that go on after the first of two rounds


@pytest.mark.parametrize("calls", [5, TRIALS + 3])
def test_a_stop_in_any_rung_changes_no_trials_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = _climbed(tmp_path / "whole", monkeypatch, None)
    stopped = _climbed(tmp_path / "stopped", monkeypatch, calls)
    assert stopped == whole
    assert whole.count("complete") == FINAL and whole.count("pruned") == TRIALS - FINAL


def _climbed(folder: Path, patch: pytest.MonkeyPatch, calls: int | None) -> list[str]:
    """The ends of trials; calls: of scores, after which the first process is stopped."""
    from hanse.planning.search.study import open_trials

    folder.mkdir()
    every = [Setting(Choice(f"{n}", {}), Choice("fedavg", {}), 1e-3) for n in range(TRIALS)]
    seen: list[int] = []

    def scored(experiment: SimpleNamespace, *others: object) -> dict[str, SiloScore]:
        number = int(experiment.output_dir.name.removeprefix("trial-"))
        seen.append(number)
        if len(seen) == calls:
            others[-1].set()  # type: ignore[attr-defined]
        return {"silo-1": SiloScore(number * 7 % 25 / 25, 10)}

    patch.setattr(rungs, "scores_at", scored)
    patch.setattr(rungs, "trial_of", lambda *parts: SimpleNamespace(output_dir=parts[-1]))
    for process in range(1 if calls is None else 2):
        trials = open_trials(folder, lower=False)
        trials.add(every)
        ladder = rungs.Ladder(trials, None, 2, "accuracy", folder, None)  # type: ignore[arg-type]
        if calls is not None and process == 0:
            with pytest.raises(StoppedError):
                ladder.climb(threading.Event())
        else:
            ladder.climb(threading.Event())
    assert len(seen) == TRIALS + FINAL
    return [trial.state for trial in trials.every]
