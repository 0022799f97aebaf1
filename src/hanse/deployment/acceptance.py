"""The answer of a silo to an experiment, before any server sends it."""

from collections.abc import Iterator

from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo import emulators
from hanse.deployment.silo.delivered_models import FOLDER
from hanse.deployment.silo.job import received
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


def refuse_unaccepted(experiment: Experiment, silo: SiloSettings) -> str:
    """Raise UserError, with all reasons, for an experiment whose settings the silo would refuse.

    Returns a remark if the silo has the whole model of the emulator that it would train; else "".
    Of the base model it is only looked at whether it is an emulator, if it is on this machine; the
    silo's rows are not looked at.
    """
    job = received(job_text(_with_labels(experiment)), silo)
    # Of a model that is sent, the job has the folder's name alone.
    trained = experiment if experiment.deployment.deliver_model else job.experiment
    model = trained.model.model_name_or_path
    here = emulators.is_here(model)
    emulator = record.of_model(model) if here else None
    reasons = [
        *settings_refusals(silo.policy, job),
        *_delivery_refusals(experiment, silo),
        *(emulator_refusals(silo.policy, emulator is not None) if here else ()),
    ]
    if sentence := refusal(silo.name, reasons):
        raise UserError(sentence)
    for sentence in code_refusals(silo.name, job.experiment, outside_code(experiment)):
        raise UserError(sentence)
    return emulators.whole_model_remark(silo, silo.state / FOLDER, emulator) if emulator else ""


def _delivery_refusals(experiment: Experiment, silo: SiloSettings) -> Iterator[str]:
    """The reason against a base model that the silo may not be sent, and names no copy of."""
    refuses = silo.policy.delivered_models == "refuse" and silo.model is None
    if experiment.deployment.deliver_model and refuses:
        yield (
            "the server sends the base model (deployment.deliver_model), and by "
            "policy.delivered_models it is sent none; name a copy by model in silo.yaml, or set "
            "policy.delivered_models to allow"
        )


def _with_labels(experiment: Experiment) -> Experiment:
    """The experiment with the labels that a server finds in the rows that are divided."""
    if experiment.brings_own_data:
        return experiment
    labels = outputs(experiment, Resources().dataset(experiment).labels)
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})
