"""Trackio: kept on this machine; `trackio show --project hanse` shows it."""

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.journal.records import Metrics
from hanse.journal.tracking import Following, Tracked, Tracker

if TYPE_CHECKING:
    from trackio import Run


@dataclass(frozen=True)
class Trackio(Tracker):
    """Trackio, where TRACKIO_DIR says."""

    project: str = "hanse"

    @property
    def packages(self) -> tuple[str, ...]:
        return ("trackio",)

    def open(self, run: Tracked) -> Following:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no result of ours
            # It knows runs by their names alone, and two folders may have the same.
            name = f"{run.name}-{run.id}"
            return _Run(
                trackio.init(self.project, name, config=run.settings, resume="allow", embed=False)
            )


@dataclass
class _Run(Following):
    run: "Run"

    def __post_init__(self) -> None:
        self.last = self.run._next_step - 1  # it tells nowhere else what it has

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        self.run.log(metrics, step=round)

    def close(self, finished: bool) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()  # of the run that was opened last, which is this one
