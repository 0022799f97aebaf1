"""The models beside the trained one, as `hanse check` shows them."""

from collections.abc import Iterator
from dataclasses import dataclass

from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.schema import Experiment
from hanse.learners.adapted_model import AdaptedModel

SERVER = "the server"


@dataclass(frozen=True)
class NamedModelFigures:
    """A model beside the trained one. trained, total: numbers of parameters.

    path: as in the settings. precision: float32 or bfloat16, with the weights' quantization.
    """

    name: str
    path: str
    trained: int
    total: int
    precision: str


def named_models(simulation: Simulation) -> dict[NamedModelFigures, list[str]]:
    """The models that the server and the clients use beside the trained one, with their users."""
    users: dict[NamedModelFigures, list[str]] = {}
    for user, experiment, models in _users(simulation):
        for name, model in models.items():
            users.setdefault(_figures(name, experiment, model), []).append(user)
    return users


def _users(simulation: Simulation) -> Iterator[tuple[str, Experiment, dict[str, AdaptedModel]]]:
    yield SERVER, simulation.experiment, dict(simulation.learner.models)
    for name, client in simulation.clients.items():
        yield name, client.experiment, dict(client.learner.models)


def _figures(name: str, experiment: Experiment, model: AdaptedModel) -> NamedModelFigures:
    settings, precision = experiment.models[name], "bfloat16" if model.backbone.bf16 else "float32"
    quantized = (
        "" if settings.quantization == "none" else f" with weights in {settings.quantization}"
    )
    trained = sum(parameter.numel() for parameter in model.parameters().values())
    path, total = settings.model_name_or_path, model.backbone.weights
    return NamedModelFigures(name, path, trained, total, precision + quantized)
