"""Run or resume an experiment with all clients in this process."""

import logging
import threading
from dataclasses import asdict
from pathlib import Path

import torch

from hanse.errors import StoppedError as StoppedError
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.assembly import marks
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.dataset import federated_dataset
from hanse.experiment.assembly.execute import go, reserved
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.model_hashes import model_hashes
from hanse.experiment.schema import Experiment, build_trackers
from hanse.federation.run import Run
from hanse.journal import environment, yaml_text
from hanse.journal.records import DEPLOYED
from hanse.journal.run_folder import Journal
from hanse.journal.run_settings import refuse_no_run
from hanse.journal.tracking import refuse_missing
from hanse.learners import flops
from hanse.learners.models.precision import compute_modes_from_json
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.simulation import client_devices, own_models
from hanse.simulation.clients_per_pass import decided
from hanse.simulation.linked_clients import clients_of

log = logging.getLogger(__name__)

# Settings that folders of earlier versions lack; their defaults are what those versions did.
ADDED = {"attack", "compression", "device", "devices", "links", "models", "privacy"}


def run(
    experiment: Experiment, resources: Resources | None = None, stop: threading.Event | None = None
) -> Path:
    """Run an experiment in a new folder, and return the finished folder.

    resources: those in memory, when several runs follow each other.
    stop: an event that ends the run after a round, for a caller that handles Ctrl-C itself.
    """
    return _go(*begin(experiment, resources), stop)


def begin(experiment: Experiment, resources: Resources | None = None) -> tuple[Simulation, Run]:
    """A run in a new folder before its first round; its journal is open."""
    refuse_missing(build_trackers(experiment))
    with reserved(experiment.output_dir, experiment.name) as claim:  # before the model is loaded
        simulation = client_devices.decided(decided(simulate(experiment, resources)))
        resolved = simulation.experiment.resolved()
        resolved["data"]["labels"] = simulation.dataset.labels  # found in the rows
        speed = _measured_speed(simulation)
        journal = Journal.begin(claim, yaml_text.dump(resolved))
    folder = journal.folder
    precision = {
        name: asdict(chosen) for name, chosen in simulation.resources.compute_modes.items()
    }
    dataset = simulation.dataset
    measured, models = simulation.resources.measurements, model_hashes(experiment, clients=True)
    public = dataset.public.digest
    environment.note(folder, dataset.digest, speed, precision, public, measured, models)
    federated_dataset.note(folder, simulation.dataset, experiment)
    log.info("run folder %s", folder)
    _pin_keys(simulation.experiment, folder)
    if experiment.deployment.deliver_model:
        log.warning(
            "deployment.deliver_model has no effect here: all clients of a simulation share one "
            "model folder"
        )
    _tell_keys(simulation)
    return simulation, simulation.run(journal, clients_of(simulation, folder))


def resume(
    folder: Path,
    resources: Resources | None = None,
    stop: threading.Event | None = None,
    trusted: bool = False,
) -> Path:
    """Continue a run from its last whole checkpoint; the result is as if it had never stopped.

    trusted: whether all code that the run names may run; see `loading.load_left`.
    """
    return _go(*reopen(folder, resources, trusted), stop)


def reopen(
    folder: Path, resources: Resources | None = None, trusted: bool = False
) -> tuple[Simulation, Run]:
    """A run that was begun, before the rounds that are left; its journal is open."""
    refuse_no_run(folder)
    if (folder / DEPLOYED).is_file():
        raise UserError(
            f"the clients of {folder} are on other machines, with what they remember; go on with "
            "the `hanse server` command that began it."
        )
    values, _ = yaml_text.read(folder / "experiment.yaml")
    if missing := Experiment.model_fields.keys() - values.keys() - ADDED:
        raise UserError(
            f"{folder / 'experiment.yaml'} is not whole: it lacks {min(missing)}; bring it back."
        )
    experiment = loading.load_left(folder / "experiment.yaml", trusted=trusted)
    refuse_missing(build_trackers(experiment))
    _pin_keys(experiment, folder)
    environment.same_models(folder, model_hashes(experiment, clients=True))
    resources = resources or Resources()
    resources.compute_modes |= compute_modes_from_json(environment.follow(folder))
    simulation = simulate(experiment, resources, begun=True)
    environment.same_data(folder, simulation.dataset.digest, simulation.dataset.public.digest)
    _tell_keys(simulation)
    return simulation, simulation.run(Journal(folder), clients_of(simulation, folder))


def _go(simulation: Simulation, run: Run, stop: threading.Event | None) -> Path:
    """Execute a run to the end, and save what its clients keep; return its folder."""
    folder = go(simulation, run, stop)
    own_models.save(simulation, run)
    return folder


def _pin_keys(experiment: Experiment, folder: Path) -> None:
    """Bind a run to all owners' keys; raises UserError for other keys than it began with."""
    marks.pin_servers_key(experiment, folder)
    marks.pin_keys(experiment, folder / "clients", experiment.participant_names)


def _tell_keys(simulation: Simulation) -> None:
    """Log that keys of simulated clients protect nothing, if the aggregator uses any."""
    if simulation.method.aggregator.needs_identity:
        log.info(
            "the clients' keys are simulated, from the seed and in one process: they protect "
            "nothing, and show what a deployment with kits would do"
        )


def _measured_speed(simulation: Simulation) -> dict[str, float]:
    """The first client's operations for one token, and this machine's peak.

    A report compares them. The client's model and tokenizer may be others than the server's.
    """
    learner = next(iter(simulation.clients.values())).learner
    report(Work(Activity.MEASURING_MACHINE))
    dtype = torch.bfloat16 if learner.backbone.bf16 else torch.float32
    return {
        **flops.per_token(learner, learner.objective, learner.splits["train"]),
        "peak_flops": flops.peak(learner.backbone.device, dtype),
    }
