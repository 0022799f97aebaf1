"""One trial: an ordinary simulated run, continued rung by rung, whose silos score it privately.

At a rung each silo scores the model on the rows that it holds out for itself (data.client_test), by
the ordinary request to evaluate; only numbers come back. The server scores nothing: neither its
validation rows nor its test rows take part in the choice.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.errors import StoppedError, UserError
from hanse.experiment import loading
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.federation import server
from hanse.federation.exchange.round import open_round
from hanse.federation.run import Run
from hanse.planning.search.settings import Setting
from hanse.simulation import run as simulation


class DivergedError(UserError):
    """A trial whose training, or whose scores, have failed; the others go on."""


@dataclass(frozen=True)
class SiloScore:
    """A silo's score of a model, the mean over so many rows of its own; and its loss, or 0."""

    value: float
    rows: float
    loss: float = 0.0


def mean(scores: Mapping[str, SiloScore]) -> float:
    """The mean score over the rows of all silos."""
    return weighted(scores)[0]


def weighted(scores: Mapping[str, SiloScore]) -> tuple[float, float]:
    """The mean score and the mean loss over the rows of all silos."""
    total = sum(own.rows for own in scores.values())
    value = sum(own.value * own.rows for own in scores.values())
    return value / total, sum(own.loss * own.rows for own in scores.values()) / total


def experiment_of(experiment: Experiment, setting: Setting) -> Experiment:
    """The user's experiment with a combination; raises UserError if that is none."""
    return loading.from_values(experiment.resolved(), setting.words)


def trial_of(experiment: Experiment, setting: Setting, rounds: int, folder: Path) -> Experiment:
    """The experiment of a trial in its own folder, which nobody else is told of."""
    changes = {
        "name": folder.name,
        "output_dir": str(folder),
        "rounds": rounds,
        "report_to": [],
        "ownership": None,
    }
    return experiment_of(experiment, setting).model_copy(update=changes)


def scores_at(
    experiment: Experiment,
    rung: int,
    metric: str,
    resources: Resources,
    stop: threading.Event,
) -> dict[str, SiloScore]:
    """Train a trial up to a rung's rounds, and ask its silos for their scores.

    A trial that has a run folder goes on from its last checkpoint. Raises StoppedError after the
    round in which `stop` was set, and DivergedError if it cannot be trained or scored.
    """
    folder = Path(str(experiment.output_dir))
    if (folder / "experiment.yaml").is_file():
        _, run = simulation.reopen(folder, resources, trusted=True)
    else:
        _, run = simulation.begin(experiment, resources)
    try:
        run = replace(run, tasks={}, schedule=replace(run.schedule, evaluate_clients=False))
        _train(run, rung, stop)
        return _scores(run, metric)
    except StoppedError:
        raise
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # of the disk, and no fault of the settings
            raise
        raise DivergedError(str(error)) from error
    finally:
        run.journal.close()


def _train(run: Run, rung: int, stop: threading.Event) -> None:
    """Execute the rounds that are left up to a rung; the generator itself would go on."""
    checkpoint = run.journal.restore()
    if checkpoint is not None and checkpoint.round >= rung:
        return
    for record in server.rounds(run):
        if record.round >= rung:
            return
        if stop.is_set():
            raise StoppedError


def _scores(run: Run, metric: str) -> dict[str, SiloScore]:
    """The silos' scores of the last round's model; silos that hold out no rows are left out."""
    checkpoint = run.journal.restore()
    assert checkpoint is not None  # a round was committed
    state = server.restored(run, checkpoint)
    exchange = open_round(run, checkpoint.round, state, run.profiles())
    with run.journal.ledger.time("round"):
        updates = {profile.name: update for profile, update in exchange.evaluate()}
    found = {
        name: SiloScore(update.numbers[metric], update.weight, update.numbers.get("loss", 0.0))
        for name, update in updates.items()
        if update.weight and metric in update.numbers
    }
    if not found or not math.isfinite(sum(weighted(found))):
        raise UserError(f"the silos' {metric} is no number: the model has diverged.")
    return found
