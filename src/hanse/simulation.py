"""A run from its experiment to its finished folder, all clients in this process."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hanse import loading, machine, settings, storage
from hanse.assembly import RUNS, Machine, Simulation, simulate
from hanse.card import model_card
from hanse.errors import UserError
from hanse.experiment import Experiment, build_algorithm
from hanse.journal import Journal, latest, records, refuse_taken
from hanse.report import write_report
from hanse.server import rounds, standing_of

log = logging.getLogger(__name__)


def run(experiment: Experiment, held: Machine | None = None) -> Path:
    """Run an experiment in a new folder; the folder, finished.

    held: what this machine has in memory already, when several runs follow each other.
    """
    folder = _folder(experiment)
    simulation = simulate(experiment, held)
    resolved = experiment.resolved()
    resolved["data"]["labels"] = simulation.division.labels  # found by looking, now written down
    journal = Journal.create(folder, settings.dump(resolved))
    machine.note(folder, simulation.division.digest)
    log.info("run folder %s", folder)
    return _go(simulation, journal)


def resume(folder: Path, held: Machine | None = None) -> Path:
    """Go on with a run from its last whole checkpoint; ends as if it had never stopped."""
    if not (folder / "experiment.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no experiment.yaml.")
    values, _ = settings.read(folder / "experiment.yaml")
    if lacking := Experiment.model_fields.keys() - values.keys():
        raise UserError(
            f"{folder / 'experiment.yaml'} is not whole: it lacks {min(lacking)}; bring it back."
        )
    experiment = loading.load(folder / "experiment.yaml")
    machine.follow(folder)
    simulation = simulate(experiment, held)
    machine.same_data(folder, simulation.division.digest)
    return _go(simulation, Journal(folder))


def _go(simulation: Simulation, journal: Journal) -> Path:
    try:
        with _stoppable(journal.folder) as stop:
            for record in rounds(simulation.run(journal)):
                if stop.is_set() and record["round"] < simulation.experiment.rounds:
                    raise _stopped(journal.folder, record["round"])
        _finish(simulation, journal.folder)
    except KeyboardInterrupt:
        checkpoint = latest(journal.folder)
        raise _stopped(journal.folder, checkpoint.round if checkpoint else None) from None
    finally:
        journal.close()
    return journal.folder


def _finish(simulation: Simulation, folder: Path) -> None:
    """Leave the adapter with its card, and the report."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise UserError(f"{folder} has no checkpoint that can be read.")
    learner, algorithm = simulation.learner, build_algorithm(simulation.experiment)
    learner.load(algorithm.model(standing_of(checkpoint).state))
    with storage.folder(folder / "adapter") as aside:
        learner.save(aside)
        card = model_card(simulation.experiment, records(folder))
        (aside / "README.md").write_text(card, encoding="utf-8")
    write_report(folder)


def _folder(experiment: Experiment) -> Path:
    """Where a run goes: the folder that was asked for, or the first free one of its name."""
    if experiment.output_dir is not None:
        folder = Path(experiment.output_dir).expanduser()
        refuse_taken(folder)  # before the model is loaded
        return folder
    number = 1
    while (folder := RUNS / f"{experiment.name}{f'-{number}' if number > 1 else ''}").exists():
        number += 1
    return folder


@contextmanager
def _stoppable(folder: Path) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.warning("stopping when this round is saved; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _stopped(folder: Path, round: int | None) -> UserError:
    if round is None:
        return UserError(
            f"stopped before anything was saved; begin again: `hanse resume {folder}`."
        )
    return UserError(f"stopped after round {round} was saved; go on with `hanse resume {folder}`.")
