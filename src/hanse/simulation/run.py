"""A run from its experiment to its finished folder, all clients in this process."""

import logging
import threading
from dataclasses import asdict
from pathlib import Path

import torch

from hanse.errors import StoppedError as StoppedError
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.assembly import federated_dataset
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.execute import go, reserved
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment, build_trackers
from hanse.journal import environment, yaml_text
from hanse.journal.run_folder import DEPLOYED, Journal
from hanse.journal.tracking import refuse_missing
from hanse.learners import flops
from hanse.learners.models.precision import read
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.simulation.clients_per_pass import decided
from hanse.simulation.in_process import in_process

log = logging.getLogger(__name__)


def run(
    experiment: Experiment, held: Resources | None = None, stop: threading.Event | None = None
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
        journal = Journal.begin(claim, yaml_text.dump(resolved))
    folder = journal.folder
    precision = {name: asdict(chosen) for name, chosen in simulation.machine.compute_modes.items()}
    environment.note(folder, simulation.division.digest, speed, precision)
    federated_dataset.note(folder, simulation.division, experiment)
    log.info("run folder %s", folder)
    return go(simulation, simulation.run(journal, in_process(simulation, folder)), stop)


def resume(
    folder: Path,
    held: Resources | None = None,
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
    values, _ = yaml_text.read(folder / "experiment.yaml")
    if lacking := Experiment.model_fields.keys() - values.keys():
        raise UserError(
            f"{folder / 'experiment.yaml'} is not whole: it lacks {min(lacking)}; bring it back."
        )
    experiment = loading.load_left(folder / "experiment.yaml", trusted=trusted)
    refuse_missing(build_trackers(experiment))
    held = held or Resources()
    held.compute_modes |= read(environment.follow(folder))
    simulation = simulate(experiment, held, begun=True)
    environment.same_data(folder, simulation.division.digest)
    run = simulation.run(Journal(folder), in_process(simulation, folder))
    return go(simulation, run, stop)


def _speed(simulation: Simulation) -> dict[str, float]:
    """What a token takes, and what this machine can do: a report says how near it came to that."""
    silo, learner = next(iter(simulation.silos.values())), simulation.learner
    report(Work(Activity.MEASURING_MACHINE))
    dtype = torch.bfloat16 if learner.backbone.bf16 else torch.float32
    return {
        **flops.per_token(learner, learner.objective, silo.examples["train"]),
        "peak_flops": flops.peak(learner.backbone.device, dtype),
    }
