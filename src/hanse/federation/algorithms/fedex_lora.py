"""FedEx-LoRA (Singhal et al. 2025, 2410.09432): what the mean of factors lacks goes to the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL, refuse_other_than_lora
from hanse.tensors.named import RunningMean, Tensors, add_prefix, drop, strip_prefix


@dataclass(frozen=True)
class FedExLoRA(FedAvg):
    """A and B become their means, and W ← W + s·(Σ pₖBₖAₖ − B·A): together exactly the mean.

    The difference has rank (K − 1)·r at most and is kept, and sent, as factors. Other than with
    FLoRA the adapter stays warm. The mean is weighted as FedAvg's; the paper's is not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    resets_optimizer: ClassVar[bool] = True  # the base below the adapter has changed
    payload: ClassVar[str] = "factors"

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        refuse_other_than_lora(model, type(self).__name__)
        return {"model": model, "residual": {}}

    def model(self, state: State) -> Tensors:
        return {**state["model"], **add_prefix(RESIDUAL, state["residual"])}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(self.model(state))

    def train(self, instruction: Instruction, client: Client) -> Update:
        ended, fit = client.learner.trained(instruction.tensors)
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = RunningMean()
        for _, update in updates:
            mean.add(update.tensors, update.weight)
        middle, scaling = mean.value(), updates[0][0].numbers.get("scaling", 1.0)
        parts = [(u.weight / mean.weight * scaling, low_rank.layers(u.tensors)) for _, u in updates]
        parts.append((-scaling, low_rank.layers(middle)))
        change = {
            name: low_rank.stacked((weight, own[name].to(torch.float64)) for weight, own in parts)
            for name in parts[0][1]
        }
        short = {n: low_rank.shortened(one)[0].to(torch.float32) for n, one in change.items()}
        clients = tuple(profile.name for profile, _ in updates)
        tensors = {**middle, **add_prefix(RESIDUAL, low_rank.tensors(short))}
        return Aggregate(tensors, {}, mean.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        change = strip_prefix(combined.tensors, RESIDUAL)
        model = drop(combined.tensors, add_prefix(RESIDUAL, change))
        return {"model": model, "residual": low_rank.summed(state["residual"], change)}
