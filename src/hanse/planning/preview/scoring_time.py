"""The time that evaluation takes in a run, from scoring a few examples."""

import time
from collections.abc import Sequence
from dataclasses import replace

from hanse.data.example import Example
from hanse.data.packed import lengths
from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.interfaces.task import Task
from hanse.federation.run import Run

FIRST = 8  # examples that a task is timed on at first
SCORED, ANSWERED = 64, 16  # then, if that does not take long; answers that a task generates
SECONDS = 4.0  # that the later timings may take


def scoring_seconds(simulation: Simulation, run: Run) -> float:
    """The seconds of evaluation in the whole run."""
    schedule, learner = run.schedule, simulation.learner
    every = schedule.validate_every
    validations = len({*(range(0, schedule.rounds, every) if every else ()), schedule.rounds})
    tests = {True: 2, "final": 1, False: 0}[schedule.test]
    held_out = [client.examples["test"] for client in simulation.clients.values()]
    seconds = 0.0
    for task in run.tasks.values():
        splits = [learner.examples("test")] * tests
        if not task.test_only:
            splits += [learner.examples("validation")] * validations
            splits += held_out if run.evaluates_clients else []
        splits = [split for split in splits if split]
        if splits:
            amount = sum(_amount(task, split) for split in splits)
            seconds += amount * _seconds_each(task, simulation, splits[0])
    return seconds


def _amount(task: Task, split: Sequence[Example]) -> int:
    """The units that the time of scoring grows with: generated answers, or else tokens."""
    scored = split[: task.limit]
    return len(scored) if task.test_only else sum(lengths(scored))


def _seconds_each(task: Task, simulation: Simulation, split: Sequence[Example]) -> float:
    """The seconds for each unit of `_amount`, from scoring a few examples of every length.

    The second of two times counts: products of shapes that are new take longer. If the first takes
    long, they hardly matter.
    """
    seconds, amount = _timed(task, simulation, split, FIRST)
    if seconds < SECONDS:
        seconds, amount = _timed(task, simulation, split, FIRST)
    most = ANSWERED if task.test_only else SCORED
    if 2 * seconds * most / FIRST <= SECONDS:
        seconds, amount = [_timed(task, simulation, split, most) for _ in range(2)][1]
    return seconds / amount


def _timed(
    task: Task, simulation: Simulation, split: Sequence[Example], most: int
) -> tuple[float, int]:
    """(seconds, units of `_amount`) of scoring about `most` examples of every length."""
    sample = split[:: max(1, len(split) // most)]
    begin = time.perf_counter()
    task.evaluate(replace(simulation.learner, splits={"test": sample}), "test")
    return time.perf_counter() - begin, _amount(task, sample)
