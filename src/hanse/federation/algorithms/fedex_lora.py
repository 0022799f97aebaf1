"""FedEx-LoRA (Singhal et al. 2025, 2410.09432): adds the error of averaged factors to the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import WEIGHED
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL, refuse_other_than_lora
from hanse.tensors.named import RunningMean, Tensors, add_prefix, drop, strip_prefix


@dataclass(frozen=True)
class FedExLoRA(FedAvg):
    """A and B become their means, and W ← W + s·(Σ pₖBₖAₖ − B·A): together the exact mean.

    The difference has at most rank (K − 1)·r, and is kept and sent as factors. Unlike in FLoRA the
    adapter is not reset. The mean has FedAvg's weights; the paper's has none.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    for_sums: ClassVar[str] = "ffa_lora"  # its mean of products is exact
    resets_optimizer: ClassVar[bool] = True  # the frozen weights have changed
    payload: ClassVar[str] = "factors"
    needs_factors: ClassVar[bool] = True

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
        tensors, result = client.learner.trained(instruction.tensors)
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = RunningMean()
        for _, update in updates:
            mean.add(update.tensors, update.weight)
        means, scaling = mean.value(), updates[0][0].numbers.get("scaling", 1.0)
        parts = [(u.weight / mean.weight * scaling, low_rank.layers(u.tensors)) for _, u in updates]
        parts.append((-scaling, low_rank.layers(means)))
        difference = {
            name: low_rank.stacked((w, layers[name].to(torch.float64)) for w, layers in parts)
            for name in parts[0][1]
        }
        short = {n: low_rank.shortened(f)[0].to(torch.float32) for n, f in difference.items()}
        clients = tuple(profile.name for profile, _ in updates)
        tensors = {**means, **add_prefix(RESIDUAL, low_rank.tensors(short))}
        return Aggregate(tensors, {}, mean.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        change = strip_prefix(combined.tensors, RESIDUAL)
        model = drop(combined.tensors, add_prefix(RESIDUAL, change))
        return {"model": model, "residual": low_rank.summed(state["residual"], change)}
