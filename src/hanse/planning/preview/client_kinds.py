"""Kinds of clients: which model and which adapter each one trains, where they differ."""

from dataclasses import dataclass
from pathlib import Path

from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.experiment.assembly.resources import adapter_settings
from hanse.registry import name_of
from hanse.tensors.low_rank import A


@dataclass(frozen=True)
class ClientKind:
    """Clients that train the same kind of adapter on the same model.

    adapter: its name, with LoRA's ranks. model: its name, with its quantization.
    tensors, parameters: those that each of the clients trains.
    """

    adapter: str
    model: str
    tensors: int
    parameters: int


def client_kinds(simulation: Simulation) -> dict[ClientKind, list[str]]:
    """The clients of each kind, in client order; empty if all are as the server."""
    experiment = simulation.experiment
    if all(client.experiment is experiment for client in simulation.clients.values()):
        return {}
    kinds: dict[ClientKind, list[str]] = {}
    for name, client in simulation.clients.items():
        kinds.setdefault(_kind(client), []).append(name)
    return kinds if len(kinds) > 1 else {}


def _kind(client: SimulatedClient) -> ClientKind:
    model, parameters = client.experiment.model, client.learner.parameters()
    ranks = sorted({len(p) for name, p in parameters.items() if name.endswith(A)})
    shown = (
        f" of rank {' to '.join(map(str, dict.fromkeys([ranks[0], ranks[-1]])))}" if ranks else ""
    )
    names = [name_of(kind) for kind in adapter_settings(client.experiment).kinds]
    quantized = "" if model.quantization == "none" else f" in {model.quantization}"
    return ClientKind(
        " and ".join(names) + shown,
        Path(model.model_name_or_path).name + quantized,
        len(parameters),
        sum(parameter.numel() for parameter in parameters.values()),
    )
