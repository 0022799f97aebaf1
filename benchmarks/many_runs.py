"""Many short runs, two at a time in processes of one thread each.

A run that was stopped is gone on with; one that is finished is not done again. Import this before
torch, which then takes one thread, here and in the processes.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from types import TracebackType
from typing import TypeVar

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from hanse.errors import UserError
from hanse.experiment.assembly import execute
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.simulation import run as simulation

WORKERS = 2
Key = TypeVar("Key")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One run: its folder, the experiment's file, and what is set in it."""

    folder: Path
    file: Path
    settings: tuple[str, ...]

    def experiment(self) -> Experiment:
        """What is run."""
        return load(self.file, [*self.settings, f"output_dir={self.folder}"])

    @property
    def finished(self) -> bool:
        """Whether the run has ended; one that diverged never does."""
        return execute.finished(self.folder)


class Workers:
    """Processes that keep the model and what it computed from one run to the next.

    number: of the processes; 0 runs everything in this one.
    """

    def __init__(self, number: int = WORKERS) -> None:
        self.number = number
        self._pool: Pool | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        if error is None:
            self._pool.close()
        else:
            self._pool.terminate()
        self._pool.join()

    def each(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Do what is not done yet; every task as soon as it is done, or has diverged."""
        wanted = list(dict.fromkeys(tasks))
        left = [task for task in wanted if not task.finished]
        yield from (task for task in wanted if task.finished)
        for number, (task, error) in enumerate(self._done(left), 1):
            log.info("%d of %d: %s%s", number, len(left), task.folder.name, error)
            yield task

    def groups(self, plan: Mapping[Key, Sequence[Task]]) -> Iterator[Key]:
        """Do the tasks of all groups; a group's key as soon as the last of its tasks is done."""
        done: set[Task] = set()
        for task in self.each(task for tasks in plan.values() for task in tasks):
            done.add(task)
            yield from (k for k, tasks in plan.items() if task in tasks and done.issuperset(tasks))

    def finish(self, tasks: Iterable[Task]) -> None:
        """Do all that is not done yet."""
        for _ in self.each(tasks):
            pass

    def _done(self, tasks: list[Task]) -> Iterator[tuple[Task, str]]:
        if not tasks:
            return
        if not self.number:
            yield from map(_work, tasks)
            return
        if self._pool is None:
            self._pool = get_context("spawn").Pool(self.number, _begin)
        yield from self._pool.imap_unordered(_work, tasks)


_held = Resources()


def _begin() -> None:
    torch.set_num_threads(1)


def _work(task: Task) -> tuple[Task, str]:
    """Run a task, or go on with it; what is in memory stays for the next.

    A rate at which training diverges is a finding like others: it ends this run alone.
    """
    try:
        if (task.folder / "experiment.yaml").exists():
            simulation.resume(task.folder, _held)
        else:
            simulation.run(task.experiment(), _held)
    except UserError as error:
        if "finite" not in str(error):  # what training and scoring say of numbers that overflow
            raise
        return task, f" diverged: {error}"
    return task, ""
