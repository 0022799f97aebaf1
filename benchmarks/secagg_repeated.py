"""A run of secure sums in one process, by the clients that another run has counted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from hanse.experiment.schema import Experiment
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.interfaces.aggregator import Exchange
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Request
from hanse.federation.secure_sums.grid import Grid
from hanse.federation.sums import WEIGHT
from hanse.simulation import run as simulation
from hanse.simulation.linked_clients import clients_of
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Content


class Silenced(Transport):
    """Simulated clients, of which those that a round has not counted are not asked to train."""

    remote = timed = False

    def __init__(self, inner: Transport, counted: Mapping[int, Sequence[str]]) -> None:
        self._inner, self._counted = inner, counted

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: Content) -> None:
        request = Request.heading(message)
        if request.kind != "train" or client in self._counted[request.round]:
            self._inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        return self._inner.receive(timeout)


def repeat(
    settings: Mapping[str, Any], folder: Path, counted: Mapping[int, Sequence[str]]
) -> dict[int, dict[str, float]]:
    """Repeat a run in this process; by round, how far its sum was from the mean."""
    values = {**settings, "output_dir": str(folder)}
    found: dict[int, dict[str, float]] = {}
    with (
        patch.object(
            simulation, "clients_of", lambda s, folder: Silenced(clients_of(s, folder), counted)
        ),
        compared(found),
    ):
        simulation.run(Experiment.model_validate(values))
    return found


@contextmanager
def compared(found: dict[int, dict[str, float]]) -> Iterator[None]:
    """Compare each round's aggregate with the mean of the summands that clients have sealed."""
    seal, aggregate = SecAgg.seal, SecAgg.aggregate
    sealed: list[Tensors] = []

    def watched(rule: SecAgg, summand: Tensors, *words: Any) -> Tensors:
        sealed.append({name: tensor.clone() for name, tensor in summand.items()})
        return seal(rule, summand, *words)

    def checked(rule: SecAgg, exchange: Exchange) -> Aggregate:
        sealed.clear()
        result = aggregate(rule, exchange)
        weight = sum(float(summand[WEIGHT]) for summand in sealed)
        distance = max(
            float((tensor - _sum(name, sealed) / weight).abs().max())
            for name, tensor in result.tensors.items()
        )
        bound = exchange.weight_bound()
        grid = Grid(len(exchange.profiles), rule.bits, rule.clip, bound)
        found[exchange.round] = {
            "difference": distance,
            "rounding": len(sealed) * grid.step / 2 * bound / weight,  # half a step of each client
            "largest_number": max(float(t.abs().max()) for t in result.tensors.values()),
        }
        return result

    with patch.multiple(SecAgg, seal=watched, aggregate=checked):
        yield


def _sum(name: str, sealed: Sequence[Tensors]) -> torch.Tensor:
    return torch.stack([summand[name] for summand in sealed]).sum(0)
