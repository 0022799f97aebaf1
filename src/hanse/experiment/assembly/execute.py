"""Execution of an assembled experiment, from its journal's last round to the finished folder."""

import logging
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from hanse import atomic_files
from hanse.errors import StoppedError as StoppedError
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import RUNS, Simulation
from hanse.experiment.schema import build_algorithm, build_trackers
from hanse.federation.run import Run
from hanse.federation.server import rounds
from hanse.federation.server_state import ServerState
from hanse.journal import claims, record_files
from hanse.journal.checkpoints import latest
from hanse.journal.claims import Claim
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.records import DEPLOYED
from hanse.journal.run_folder import read_rounds
from hanse.journal.tracking import following
from hanse.learners.adapted_model import AdaptedModel
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.reports.model_card import Outcome, model_card
from hanse.reports.run.page import write_report

log = logging.getLogger(__name__)


def go(
    simulation: Simulation,
    run: Run,
    stop: threading.Event | None = None,
    again: str = "hanse resume {folder}",
) -> Path:
    """Execute a run from its journal's last round to the end, and return its finished folder.

    again: the command that continues a stopped run.
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
                if stop.is_set() and record.round < simulation.experiment.rounds:
                    raise stopped(record.round, again)
        finish(simulation, journal.folder)
    except KeyboardInterrupt as by:
        checkpoint = latest(journal.folder)
        raise stopped(checkpoint.round if checkpoint else None, again, by) from None
    finally:
        journal.close()
    return journal.folder


def finish(simulation: Simulation, folder: Path) -> None:
    """Save the adapter with its card, and other models of the server, and write the report."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise UserError(f"{folder} has no checkpoint that can be read.")
    learner, state = simulation.learner, ServerState.restored(checkpoint).algorithm_state
    algorithm = build_algorithm(simulation.experiment)
    learner.load(algorithm.model(state))
    with atomic_files.folder(folder / "adapter", replace=True) as draft:
        _save_adapter(simulation, folder, algorithm.shared(state), draft)
        _reopen(learner, draft, folder)
    for name, tensors in algorithm.beside(state).items():
        (model := learner.models[name]).load(tensors)
        with atomic_files.folder(folder / "models" / name, replace=True) as draft:
            model.save(draft)
            _reopen(model, draft, folder)
    report(Work(Activity.WRITING_REPORT))
    write_report(folder)


def _reopen(learner: AdaptedModel, draft: Path, folder: Path) -> None:
    """Raise UserError unless PEFT can open what was saved; folder: of the run."""
    report(Work(Activity.REOPENING_ADAPTER))
    try:
        learner.reopen(draft)
    except UserError as error:
        raise UserError(
            f"{error} The trained adapter is in {folder / 'state'}; `hanse resume {folder}` "
            "tries again to save it."
        ) from error


def _save_adapter(
    simulation: Simulation, folder: Path, shared: Collection[str], draft: Path
) -> None:
    """Save the adapter with its card into `draft`; shared: tensors that clients train together."""
    experiment, learner = simulation.experiment, simulation.learner
    # In a fresh adapter, tensors that the federation has not trained have no effect.
    left = learner.unshared(shared) if experiment.adapter.source is None else []
    learner.save(draft, left)
    outcome = Outcome(
        clients=len(experiment.participant_names),
        rounds=read_rounds(folder),
        left=left,
        personal=learner.personal(shared, left),
        deployed=(folder / DEPLOYED).is_file(),
        account=record_files.read(folder / PRIVACY, PrivacyRecord),
    )
    card = model_card(experiment.resolved(), outcome, draft)
    (draft / "README.md").write_text(card, encoding="utf-8")


def finished(folder: Path) -> bool:
    """True if a run folder has an adapter and a report; a report alone may precede the end."""
    return (folder / "adapter").is_dir() and (folder / "report.html").is_file()


def reserved(output_dir: str | None, name: str) -> AbstractContextManager[Claim]:
    """A claim on the folder of the results: the given one, or the first free one of this name."""

    def named(number: int) -> Path:
        if output_dir is not None:
            return Path(output_dir).expanduser()
        return RUNS / f"{name}{f'-{number}' if number > 1 else ''}"

    return claims.reserved(named)


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second Ctrl-C stops at once.

    Only the main thread can do this. A process that was started to ignore Ctrl-C, as a shell starts
    those in the background of a script, goes on ignoring it.
    """
    stop = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
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


def stopped(round: int | None, again: str, by: BaseException | None = None) -> StoppedError:
    """The error of a stopped run, with the last saved round and the command that continues it."""
    if round is None:
        return StoppedError(f"stopped before anything was saved; begin again: `{again}`.", by)
    return StoppedError(f"stopped after round {round} was saved; go on with `{again}`.", by)
