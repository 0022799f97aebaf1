"""Weights & Biases: online with a key; else `wandb sync RUN/wandb/latest-run` sends it later."""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.journal.records import Metrics
from hanse.journal.tracking import Following, Tracked, Tracker

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases: online where a key is known or WANDB_MODE says so, else offline."""

    project: str = "hanse"

    @property
    def packages(self) -> tuple[str, ...]:
        return ("wandb",)

    def open(self, run: Tracked) -> Following:
        import wandb

        settled = "WANDB_MODE" in os.environ or wandb.login(prompt=False, verify=False)
        opened = wandb.init(
            project=self.project,
            name=run.name,
            id=run.id,
            resume="allow",
            config=run.settings,
            dir=run.folder,
            mode=None if settled else "offline",
            settings=wandb.Settings(console="off", silent=True),
        )
        place = f"offline, in {run.folder / 'wandb'}" if opened.offline else opened.url
        log.info("wandb: %s", place)
        return _Run(opened)


@dataclass
class _Run(Following):
    run: "Run"

    def __post_init__(self) -> None:
        self.last = self.run.step - 1  # an offline run has nothing from before

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        self.run.log(metrics, step=round, commit=True)

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
