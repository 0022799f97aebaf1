"""Many short runs, two at a time in processes of one thread each.

A run that was stopped is gone on with; one that is finished is not done again. Import this before
torch, which then takes one thread, here and in the processes.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from hanse import simulation
from hanse.experiment import Experiment
from hanse.held import Machine
from hanse.loading import load

WORKERS = 2


@dataclass(frozen=True)
class Task:
    """One run: its folder, the experiment's file, and what is set in it."""

    folder: Path
    file: Path
    settings: tuple[str, ...]

    def experiment(self) -> Experiment:
        """What is run."""
        return load(self.file, [*self.settings, f"output_dir={self.folder}"])


def finish(tasks: Iterable[Task], workers: int = WORKERS) -> None:
    """Do all that is not done yet."""
    left = [task for task in tasks if not simulation.finished(task.folder)]
    if not left:
        return
    with get_context("spawn").Pool(workers, _begin) as pool:
        for number, name in enumerate(pool.imap_unordered(_work, left), 1):
            logging.info("%d of %d: %s", number, len(left), name)


_held = Machine()


def _begin() -> None:
    torch.set_num_threads(1)


def _work(task: Task) -> str:
    """Run a task, or go on with it; what is in memory stays for the next."""
    if (task.folder / "experiment.yaml").exists():
        simulation.resume(task.folder, _held)
    else:
        simulation.run(task.experiment(), _held)
    return task.folder.name
