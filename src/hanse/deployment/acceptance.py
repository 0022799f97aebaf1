"""The answer of a silo to an experiment, before any server sends it."""

from collections.abc import Iterator

from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo import emulators
from hanse.deployment.silo.delivered_models import FOLDER
from hanse.deployment.silo.job import Job, received
from hanse.deployment.silo.refusals import (
    code_refusals,
    emulator_refusals,
    refusal,
    settings_refusals,
)
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources, outputs
from hanse.experiment.loading import outside_code
from hanse.experiment.schema import Experiment
from hanse.learners.models.emulators import record


def refuse_unaccepted(experiment: Experiment, silo: SiloSettings) -> None:
    """Raise UserError, with all reasons, for an experiment whose settings the silo would refuse.

    Of the base model it is only looked at whether it is an emulator, if it is on this machine; the
    silo's rows are not looked at.
    """
    job = received(job_text(_with_labels(experiment)), silo)
    reasons = [
        *settings_refusals(silo.policy, job),
        *_delivery_refusals(experiment, silo),
        *_emulator_refusals(experiment, job, silo),
    ]
    if sentence := refusal(silo.name, reasons):
        raise UserError(sentence)
    for sentence in code_refusals(silo.name, job.experiment, outside_code(experiment)):
        raise UserError(sentence)


def _delivery_refusals(experiment: Experiment, silo: SiloSettings) -> Iterator[str]:
    """The reason against a base model that the silo may not be sent, and names no copy of."""
    refuses = silo.policy.delivered_models == "refuse" and silo.model is None
    if experiment.deployment.deliver_model and refuses:
        yield (
            "the server sends the base model (deployment.deliver_model), and by "
            "policy.delivered_models it is sent none; name a copy by model in silo.yaml, or set "
            "policy.delivered_models to allow"
        )


def whole_model_remark(experiment: Experiment, silo: SiloSettings) -> str:
    """A sentence if the silo has the whole model of the emulator that it would train; else ""."""
    name = _model(experiment, received(job_text(_with_labels(experiment)), silo))
    emulator = record.of_model(name) if emulators.is_here(name) else None
    delivered = silo.state / FOLDER
    return emulators.whole_model_remark(silo, delivered, emulator) if emulator else ""


def _model(experiment: Experiment, job: Job) -> str:
    """The name of the base model of a silo's job; of one that is sent, the server's own."""
    trained = experiment if experiment.deployment.deliver_model else job.experiment
    return trained.model.model_name_or_path


def _emulator_refusals(experiment: Experiment, job: Job, silo: SiloSettings) -> Iterator[str]:
    """The reason against a base model that is an emulator, or is none; if it is on this machine."""
    name = _model(experiment, job)
    if emulators.is_here(name):
        yield from emulator_refusals(silo.policy, record.of_model(name) is not None)


def _with_labels(experiment: Experiment) -> Experiment:
    """The experiment with the labels that a server finds in the rows that are divided."""
    if experiment.brings_own_data:
        return experiment
    labels = outputs(experiment, Resources().dataset(experiment).labels)
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})
