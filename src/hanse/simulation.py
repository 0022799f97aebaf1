"""A run from its experiment to its finished folder, all clients in this process."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch

from hanse import claims, division, flops, loading, machine, settings, storage
from hanse.assembly import RUNS, Simulation, simulate
from hanse.card import model_card
from hanse.claims import Claim
from hanse.cohorts import decided
from hanse.errors import UserError
from hanse.experiment import Experiment, build_algorithm, build_trackers
from hanse.held import Machine
from hanse.journal import DEPLOYED, Journal, latest, records
from hanse.learners.precision import read
from hanse.progress import say
from hanse.report import write_report
from hanse.server import Run, rounds
from hanse.standing import standing_of
from hanse.stops import StoppedError as StoppedError
from hanse.tracking import following, refuse_missing

log = logging.getLogger(__name__)


def run(
    experiment: Experiment, held: Machine | None = None, stop: threading.Event | None = None
) -> Path:
    """Run an experiment in a new folder; the folder, finished.

    held: what this machine has in memory already, when several runs follow each other.
    stop: set by a caller that answers Ctrl-C itself, to end the run after a round.
    """
    refuse_missing(build_trackers(experiment))
    with reserved(experiment.output_dir, experiment.name) as claim:  # before the model is loaded
        simulation = decided(simulate(experiment, held))
        resolved = simulation.experiment.resolved()
        resolved["data"]["labels"] = (
            simulation.division.labels
        )  # found by looking, now written down
        speed = _speed(simulation)
        journal = Journal.begin(claim, settings.dump(resolved))
    folder = journal.folder
    precision = {name: asdict(chosen) for name, chosen in simulation.machine.chosen.items()}
    machine.note(folder, simulation.division.digest, speed, precision)
    division.note(folder, simulation.division, experiment)
    log.info("run folder %s", folder)
    return go(simulation, simulation.run(journal), stop)


def resume(
    folder: Path,
    held: Machine | None = None,
    stop: threading.Event | None = None,
    trusted: bool = False,
) -> Path:
    """Go on with a run from its last whole checkpoint; ends as if it had never stopped.

    trusted: whether all code that the run names may run; see `loading.load_left`.
    """
    if not (folder / "experiment.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no experiment.yaml.")
    if (folder / DEPLOYED).is_file():
        raise UserError(
            f"the clients of {folder} are on other machines, with what they remember; go on with "
            "the `hanse server` command that began it."
        )
    values, _ = settings.read(folder / "experiment.yaml")
    if lacking := Experiment.model_fields.keys() - values.keys():
        raise UserError(
            f"{folder / 'experiment.yaml'} is not whole: it lacks {min(lacking)}; bring it back."
        )
    experiment = loading.load_left(folder / "experiment.yaml", trusted=trusted)
    refuse_missing(build_trackers(experiment))
    held = held or Machine()
    held.chosen |= read(machine.follow(folder))
    simulation = simulate(experiment, held, begun=True)
    machine.same_data(folder, simulation.division.digest)
    return go(simulation, simulation.run(Journal(folder)), stop)


def _speed(simulation: Simulation) -> dict[str, float]:
    """What a token takes, and what this machine can do: a report says how near it came to that."""
    silo, learner = next(iter(simulation.silos.values())), simulation.learner
    say("measuring this machine")
    dtype = torch.bfloat16 if learner.backbone.bf16 else torch.float32
    return {
        **flops.per_token(learner, learner.objective, silo.examples["train"]),
        "peak_flops": flops.peak(learner.backbone.device, dtype),
    }


def go(
    simulation: Simulation,
    run: Run,
    stop: threading.Event | None = None,
    again: str = "hanse resume {folder}",
) -> Path:
    """Let a run go to its end, from where its journal stands; its folder, finished.

    again: the command that goes on with one that is stopped.
    """
    journal = run.journal
    again = again.format(folder=journal.folder)
    try:
        trackers = build_trackers(simulation.experiment)
        with (
            nullcontext(stop) if stop else stoppable() as stop,
            following(trackers, journal.folder) as tell,
        ):
            for record in rounds(run):
                tell()
                if stop.is_set() and record["round"] < simulation.experiment.rounds:
                    raise _stopped(record["round"], again)
        _finish(simulation, journal.folder)
    except KeyboardInterrupt as by:
        checkpoint = latest(journal.folder)
        raise _stopped(checkpoint.round if checkpoint else None, again, by) from None
    finally:
        journal.close()
    return journal.folder


def _finish(simulation: Simulation, folder: Path) -> None:
    """Leave the adapter with its card, and the report."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise UserError(f"{folder} has no checkpoint that can be read.")
    experiment, learner = simulation.experiment, simulation.learner
    algorithm, state = build_algorithm(experiment), standing_of(checkpoint).state
    learner.load(algorithm.model(state))
    shared = algorithm.shared(state)
    # Where all begin afresh, what nobody has trained does nothing.
    left = learner.unshared(shared) if experiment.adapter.source is None else []
    with storage.folder(folder / "adapter", replace=True) as aside:
        learner.save(aside, left)
        personal = learner.personal(shared, left)
        card = model_card(experiment, records(folder), aside, left, personal)
        (aside / "README.md").write_text(card, encoding="utf-8")
        say("opening the adapter again")
        try:
            learner.reopen(aside)
        except UserError as error:
            raise UserError(
                f"{error} What was learned is kept in {folder / 'state'}, and `hanse resume "
                f"{folder}` tries again."
            ) from error
    say("writing the report")
    write_report(folder)


def finished(folder: Path) -> bool:
    """Whether a run folder has all that a run leaves; a report may come before the end."""
    return (folder / "adapter").is_dir() and (folder / "report.html").is_file()


def reserved(output_dir: str | None, name: str) -> AbstractContextManager[Claim]:
    """Where results go: the folder that was asked for, or the first free one of this name."""

    def named(number: int) -> Path:
        if output_dir is not None:
            return Path(output_dir).expanduser()
        return RUNS / f"{name}{f'-{number}' if number > 1 else ''}"

    return claims.reserved(named)


@contextmanager
def stoppable() -> Iterator[threading.Event]:
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


def _stopped(round: int | None, again: str, by: BaseException | None = None) -> StoppedError:
    if round is None:
        return StoppedError(f"stopped before anything was saved; begin again: `{again}`.", by)
    return StoppedError(f"stopped after round {round} was saved; go on with `{again}`.", by)
