"""LoRA-FAIR (Bian et al. 2024, 2411.14961): the server corrects B, to bring B·A near the mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import WEIGHED
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora
from hanse.tensors.named import RunningMean


@dataclass(frozen=True)
class LoRAFAIR(FedAvg):
    """A and B become their means, and B is corrected by ΔB; traffic is the same as FedIT's.

    ΔB minimizes ‖Σ pₖBₖAₖ − (B + ΔB)·A‖² + λ·(‖A‖²/r)·‖ΔB‖². This is a reconstruction: the paper
    takes gradient steps on a similarity of the two products; the least squares here have a closed
    form that needs the factors only. λ is relative to A, so it means the same for layers of any
    size; with a large λ this becomes FedIT.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    for_sums: ClassVar[str] = "ffa_lora"  # its mean of products is exact
    payload: ClassVar[str] = "factors"
    needs_factors: ClassVar[bool] = True
    strength: PositiveFloat = 0.01  # λ, the pull of B's mean

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__)
        return super().init(server)

    def train(self, instruction: Instruction, client: Client) -> Update:
        tensors, result = client.learner.trained(instruction.tensors)
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = RunningMean()
        for _, update in updates:
            mean.add(update.tensors, update.weight)
        parts = [(u.weight / mean.weight, low_rank.layers(u.tensors)) for _, u in updates]
        tensors = mean.value()
        means = low_rank.layers(tensors)
        parts.append((-1.0, means))
        corrected = {
            name: self._corrected(
                factors, low_rank.stacked((weight, layers[name]) for weight, layers in parts)
            )
            for name, factors in means.items()
        }
        clients = tuple(profile.name for profile, _ in updates)
        return Aggregate({**tensors, **low_rank.tensors(corrected)}, {}, mean.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {"model": combined.tensors}

    def _corrected(self, means: Factors, difference: Factors) -> Factors:
        """Add ΔB = D·Aᵀ(A·Aᵀ + λ‖A‖²/r)⁻¹ to B; D is the mean product minus the means' product."""
        a, difference = means.down.double(), difference.to(torch.float64)
        gram = a @ a.T
        ridge = self.strength * gram.diagonal().mean() * torch.eye(len(a), dtype=a.dtype)
        change = torch.linalg.solve(gram + ridge, a @ difference.down.T @ difference.up.T).T
        return Factors((means.up.double() + change).float(), means.down)
