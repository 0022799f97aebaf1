"""HetLoRA (Cho et al. 2024, 2401.06432): clients of different ranks, padded with zeros."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES, Difference
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora, refuse_unequal_ranks
from hanse.tensors.named import Layout, RunningMean, Tensors, layout

SMALLEST = 1e-12  # added to weights, so that clients without any change weigh the same


@dataclass(frozen=True)
class HetLoRA(FedAvg):
    """Client k trains the first rₖ rows of A and columns of B; the mean is of the padded factors.

    Factors are weighted by ‖sₖBₖAₖ‖ over all layers, so that larger updates count for more; other
    tensors are weighted by examples. Each factor is multiplied by √sₖ before averaging, and divided
    by the receiver's √s when it is sent: only products with their scaling s are comparable. The
    mean is inexact, like FedIT's, and equals it where ranks and norms are equal. Clients keep the
    ranks of their settings: the paper's pruning of ranks during training is left out.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payload: ClassVar[str] = "factors"
    needs_factors: ClassVar[bool] = True
    clients_may_differ: ClassVar[Difference] = "rank"

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__)
        refuse_unequal_ranks(server.learner.tensors(), type(self).__name__)
        scaling = torch.tensor(server.learner.scaling, dtype=torch.float64)
        return {**super().init(server), "scaling": {"server": scaling}}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        ratio = float(state["scaling"]["server"]) / _scaling(profile)
        return Instruction(_scaled(_first(state["model"], profile), ratio))

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_first(state["model"], profile))

    def train(self, instruction: Instruction, client: Client) -> Update:
        tensors, result = client.learner.trained(instruction.tensors)
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        adapters = [
            low_rank.layers(_scaled(update.tensors, _scaling(profile)))
            for profile, update in updates
        ]
        rank = max(next(iter(layers.values())).rank for layers in adapters)
        mean, other = RunningMean(), RunningMean()
        for (_, update), layers in zip(updates, adapters, strict=True):
            padded = {name: low_rank.padded(factors, rank) for name, factors in layers.items()}
            other.add(low_rank.non_factor_tensors(update.tensors), update.weight)
            mean.add(low_rank.tensors(padded), _norm(layers) + SMALLEST)
        clients = tuple(profile.name for profile, _ in updates)
        return Aggregate({**mean.value(), **other.value()}, {}, other.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        """Rows beyond the ranks of the round's clients stay as they were."""
        tensors = _scaled(combined.tensors, 1 / server.learner.scaling)
        before, after = low_rank.layers(state["model"]), low_rank.layers(tensors)
        layers = {name: low_rank.over(after[name], factors) for name, factors in before.items()}
        other = low_rank.non_factor_tensors(tensors)
        return {**state, "model": {**low_rank.tensors(layers), **other}}


def _first(model: Tensors, profile: ClientProfile) -> Tensors:
    """The part of the model that a client of a lower rank trains."""
    rank, layers = int(profile.numbers["rank"]), low_rank.layers(model)
    largest = min(factors.rank for factors in layers.values())
    if rank > largest:
        raise UserError(
            f"{profile.name} has rank {rank}, but hetlora cuts clients' adapters out of the "
            f"server's, which has {largest}; set adapter.lora.r to the largest rank of all clients."
        )
    cut = {name: low_rank.first(factors, rank) for name, factors in layers.items()}
    return {**low_rank.tensors(cut), **low_rank.non_factor_tensors(model)}


def _scaling(profile: ClientProfile) -> float:
    """A client's s = α/r."""
    return profile.numbers.get("scaling", 1.0)


def _scaled(adapter: Tensors, by: float) -> Tensors:
    """The adapter with its products multiplied by a number; other tensors are unchanged."""
    layers = low_rank.layers(adapter)
    scaled = {name: low_rank.scaled(factors, by) for name, factors in layers.items()}
    return {**low_rank.tensors(scaled), **low_rank.non_factor_tensors(adapter)}


def _norm(layers: dict[str, Factors]) -> float:
    """The norm of the products of all layers together."""
    return float(sum(low_rank.norm(factors) ** 2 for factors in layers.values()) ** 0.5)
