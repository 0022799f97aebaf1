"""A silo's endpoint in a run: its model, its rows and its memory, loaded for a checked job."""

import logging
from dataclasses import replace

from hanse.audit.ownership.mark import OwnersMark, crowded
from hanse.deployment.envelopes import BadEnvelopeError, Envelope
from hanse.deployment.silo import precision
from hanse.deployment.silo.enforcement import rounded
from hanse.deployment.silo.file_limits import GB
from hanse.deployment.silo.job import Job, RowCounts
from hanse.deployment.silo.settings import SiloSettings
from hanse.experiment.assembly import marks
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.resources import Resources
from hanse.federation.client import ClientEndpoint
from hanse.federation.delivery.file_store import FileStore
from hanse.federation.delivery.files import FOLDER
from hanse.federation.releases import ReleaseLog

log = logging.getLogger(__name__)


def load_endpoint(
    silo: SiloSettings, job: Job, envelope: Envelope, resources: Resources
) -> tuple[ClientEndpoint, RowCounts]:
    """The silo's endpoint in an envelope's run, and how many rows it has.

    Raises BadEnvelopeError if its rows are not those that the server divides, or if its copy of the
    public rows is another one.
    """
    memories, experiment = silo.state / "runs" / envelope.run, job.experiment
    marks.pin_keys(experiment, memories, [silo.name])
    precision.follow(memories, experiment, envelope.precision, resources)
    experiment = experiment.model_copy(update={"clients_per_pass": "off"})
    division = resources.dataset(experiment)
    if not experiment.brings_own_data and division.digest != envelope.rows:
        raise BadEnvelopeError(
            f"the rows of {silo.name} are not those that the server divides among its silos; bring "
            "the same file, or give each silo its own in the experiment's clients."
        )
    if experiment.data.public is not None and division.public.digest != envelope.public:
        raise BadEnvelopeError(
            f"the public rows of {silo.name} have the hash {division.public.digest}, and those of "
            f"the server {envelope.public or '(none)'}; bring the same file, and name it by "
            "data.public in its silo.yaml."
        )
    training_rows = replace(division, validation=[], test=[])
    simulation = simulate(experiment, resources, training_rows, only=(silo.name,))
    tell_remarks(simulation, silo.name, len(job.participants) - 1)
    endpoint = simulation.endpoint(memories, silo.name, silo.checkpoint_seconds)
    splits = simulation.clients[silo.name].examples
    counts = RowCounts(len(splits["train"]), len(splits["test"]))
    step = silo.policy.count_rounding
    examples = rounded(counts.train, step)
    return replace(
        endpoint,
        profile=replace(endpoint.profile, examples=examples, rounding=step),
        release_log=ReleaseLog(memories / silo.name, silo.state, envelope.run, private=True),
        files=FileStore(silo.state / FOLDER, most=round(silo.policy.max_file_gb * GB)),
    ), counts


def tell_remarks(simulation: Simulation, name: str, others: int) -> None:
    """Log the remarks on a run; others: the number of other silos, whose marks are not known."""
    mark = simulation.clients[name].learner.mark
    crowd = crowded(mark, [], unknown=others) if isinstance(mark, OwnersMark) else []
    for remark in (*simulation.dataset.remarks, *crowd):
        log.warning("%s", remark)
