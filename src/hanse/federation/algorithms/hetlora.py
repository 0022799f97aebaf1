"""HetLoRA (Cho et al. 2024, 2401.06432): unequal ranks, cut and filled up with zeros."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora
from hanse.tensors.named import Layout, RunningMean, Tensors, layout

SMALLEST = 1e-12  # of a weight: clients that all say nothing count alike


@dataclass(frozen=True)
class HetLoRA(FedAvg):
    """Client k trains the first rₖ rows of A and columns of B; means are of what is filled up.

    They are weighted by ‖sₖBₖAₖ‖, so that clients that say more count for more; what is trained
    beside the factors, by their examples. Each factor has √sₖ in it when it is averaged, and √s of
    whoever is sent it is taken out again: only products with their s are compared and averaged.
    Inexact, as FedIT is, with which it agrees where ranks and norms are equal. The norms are those
    of all layers together. Clients keep the ranks that their settings give them: the paper's
    pruning of ranks while training is left out.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payload: ClassVar[str] = "factors"
    clients_may_differ: ClassVar[bool] = True

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__)
        own = torch.tensor(server.learner.scaling, dtype=torch.float64)
        return {**super().init(server), "scaling": {"server": own}}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        ratio = float(state["scaling"]["server"]) / _scaling(profile)
        return Instruction(_scaled(_first(state["model"], profile), ratio))

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_first(state["model"], profile))

    def train(self, instruction: Instruction, client: Client) -> Update:
        ended, fit = client.learner.trained(instruction.tensors)
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        own = [low_rank.layers(_scaled(u.tensors, _scaling(profile))) for profile, u in updates]
        rank = max(next(iter(one.values())).rank for one in own)
        mean, other = RunningMean(), RunningMean()
        for (_, update), one in zip(updates, own, strict=True):
            wide = {name: low_rank.padded(part, rank) for name, part in one.items()}
            other.add(low_rank.non_factor_tensors(update.tensors), update.weight)
            mean.add(low_rank.tensors(wide), _norm(one) + SMALLEST)
        clients = tuple(profile.name for profile, _ in updates)
        return Aggregate({**mean.value(), **other.value()}, {}, other.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        """Rows beyond the ranks of the round's clients stay as they were."""
        own = _scaled(combined.tensors, 1 / server.learner.scaling)
        before, after = low_rank.layers(state["model"]), low_rank.layers(own)
        whole = {name: low_rank.over(after[name], one) for name, one in before.items()}
        return {**state, "model": {**low_rank.tensors(whole), **low_rank.non_factor_tensors(own)}}


def _first(model: Tensors, profile: ClientProfile) -> Tensors:
    """What a client of a lower rank trains of the model."""
    rank, whole = int(profile.numbers["rank"]), low_rank.layers(model)
    most = min(one.rank for one in whole.values())
    if rank > most:
        raise UserError(
            f"{profile.name} has rank {rank}, but hetlora cuts clients' adapters out of the "
            f"server's, which has {most}; set adapter.lora.r to the largest rank of all clients."
        )
    cut = {name: low_rank.first(one, rank) for name, one in whole.items()}
    return {**low_rank.tensors(cut), **low_rank.non_factor_tensors(model)}


def _scaling(profile: ClientProfile) -> float:
    """A client's s = α/r."""
    return profile.numbers.get("scaling", 1.0)


def _scaled(adapter: Tensors, by: float) -> Tensors:
    """The adapter with its products times a number, and what is beside the factors as it is."""
    own = {name: low_rank.scaled(one, by) for name, one in low_rank.layers(adapter).items()}
    return {**low_rank.tensors(own), **low_rank.non_factor_tensors(adapter)}


def _norm(layers: dict[str, Factors]) -> float:
    """The norm of the products of all layers together."""
    return float(sum(low_rank.norm(one) ** 2 for one in layers.values()) ** 0.5)
