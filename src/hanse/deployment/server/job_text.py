"""The settings of a run as the text that all its silos are sent."""

from dataclasses import asdict
from pathlib import Path

from hanse.audit.ownership.settings import WITHHELD
from hanse.errors import UserError
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.declared import client_models
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.journal import yaml_text
from hanse.registry import name_of

SIMULATED = ("links", "devices", "device")  # settings that mean nothing between machines


def job_text(experiment: Experiment) -> str:
    """The resolved experiment without the settings that concern the server alone.

    Models that only the server uses are left out, and links and devices, which only simulate. An
    adapter to continue from lies in a folder of the server, so its settings are sent instead. Of a
    base model that is sent, silos learn the folder's name alone; of a mark of the server, that
    there is one.
    """
    values = experiment.resolved()
    for setting in SIMULATED:
        del values[setting]
    del values["attack"]  # the server refuses to begin with an attack
    ((name, settings),) = values["algorithm"].items()
    for setting in build_algorithm(experiment).server_settings:
        settings = {key: value for key, value in settings.items() if key != setting}
    values["algorithm"] = {name: settings}
    values["clients"] = {
        name: {key: value for key, value in over.items() if key not in SIMULATED}
        for name, over in values["clients"].items()
    }
    if experiment.deployment.deliver_model:
        name = Path(experiment.model.model_name_or_path).name
        values["model"] = {**values["model"], "model_name_or_path": name}
    _refuse_silos_marks(experiment)
    values |= {"output_dir": None, "report_to": [], "clients_per_pass": "off"}
    values["ownership"] = {"key": WITHHELD} if experiment.ownership else None
    if experiment.adapter.source is not None:
        _refuse_unsent(experiment)
        kinds = adapter_settings(experiment).kinds
        values["adapter"] = {name_of(kind): asdict(kind) for kind in kinds}  # type: ignore[call-overload]
    _refuse_unsent_models(experiment)
    values["models"] = {name: values["models"][name] for name in client_models(experiment)}
    return yaml_text.dump(values)


def _refuse_silos_marks(experiment: Experiment) -> None:
    """Raise UserError for marks of silos, whose keys are theirs to name."""
    for name, over in experiment.clients.items():
        if "ownership" in over:
            raise UserError(
                f"clients.{name:.80}.ownership names a key of {name:.80}, which stays at the silo; "
                "leave it out, and let the silo name it by ownership in its silo.yaml."
            )


def _refuse_unsent_models(experiment: Experiment) -> None:
    """Raise UserError for a client's model that would go on from an adapter of this machine."""
    for name in client_models(experiment):
        adapter = experiment.models[name].adapter
        if adapter is not None and adapter.source is not None:
            raise UserError(
                f"models.{name}.adapter goes on from {adapter.source}, a folder of this machine, "
                "and nothing of this model is sent to silos; give it a fresh adapter."
            )


def _refuse_unsent(experiment: Experiment) -> None:
    """Raise UserError for adapter.from with an algorithm that sends silos only some tensors."""
    algorithm = build_algorithm(experiment)
    if algorithm.personalizes or algorithm.redraws:
        raise UserError(
            f"with {type(algorithm).__name__} silos are never sent some tensors, which would not "
            f"begin as in {experiment.adapter.source}; leave adapter.from out, or choose an "
            "algorithm that sends all tensors, such as fedavg."
        )
