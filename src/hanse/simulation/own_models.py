"""The models that clients of a simulation keep for themselves, saved when a run has ended."""

import logging
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client import own_model
from hanse.federation.exchange.round import open_round
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.run import Run
from hanse.federation.server import restored
from hanse.journal.checkpoints import latest
from hanse.learners.adapted_model import AdaptedModel

log = logging.getLogger(__name__)


def save(simulation: Simulation, run: Run) -> None:
    """Save what each client keeps as `clients/NAME/adapter`, if it is not the server's model.

    Nothing is saved of clients that the algorithm would leave out of another round.
    """
    algorithm = simulation.method.algorithm
    if type(algorithm).personalized is Algorithm.personalized or algorithm.whole_model:
        return
    folder = run.journal.folder
    if (checkpoint := latest(folder)) is None:
        raise UserError(f"{folder} has no checkpoint that can be read.")
    exchange = open_round(run, checkpoint.round, restored(run, checkpoint), run.profiles())
    for name in exchange.instructions:
        endpoint = simulation.endpoint(folder / "clients", name)
        learner = own_model(endpoint, exchange.encoded("evaluate", name))
        assert isinstance(learner, AdaptedModel)
        with atomic_files.folder(adapter(folder, name), replace=True) as draft:
            learner.save(draft)
    log.info("each client's own adapter is in %s", adapter(folder, "NAME"))


def adapter(folder: Path, client: str) -> Path:
    """The folder of a client's own adapter in that of a run."""
    return folder / "clients" / client / "adapter"
