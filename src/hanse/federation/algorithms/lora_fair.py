"""LoRA-FAIR (Bian et al. 2024, 2411.14961): the server mends B, to bring B·A nearer to the mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora
from hanse.tensors.named import RunningMean


@dataclass(frozen=True)
class LoRAFAIR(FedAvg):
    """A and B become their means, and B moves by ΔB; no more is sent than with FedIT.

    ΔB minimizes ‖Σ pₖBₖAₖ − (B + ΔB)·A‖² + λ·(‖A‖²/r)·‖ΔB‖². A reconstruction: the paper looks for
    it by steps along a similarity of the two products; least squares have a closed form, of factors
    alone. λ is relative to A, so that it means the same for layers of any size; as it grows, this
    becomes FedIT.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payload: ClassVar[str] = "factors"
    strength: PositiveFloat = 0.01  # λ, how strongly B is held to its mean

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__)
        return super().init(server)

    def train(self, instruction: Instruction, client: Client) -> Update:
        ended, fit = client.learner.trained(instruction.tensors)
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = RunningMean()
        for _, update in updates:
            mean.add(update.tensors, update.weight)
        parts = [(u.weight / mean.weight, low_rank.layers(u.tensors)) for _, u in updates]
        middle = low_rank.layers(mean.value())
        parts.append((-1.0, middle))
        mended = {
            name: self._mended(one, low_rank.stacked((w, own[name]) for w, own in parts))
            for name, one in middle.items()
        }
        clients = tuple(profile.name for profile, _ in updates)
        whole = {**mean.value(), **low_rank.tensors(mended)}
        return Aggregate(whole, {}, mean.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {"model": combined.tensors}

    def _mended(self, middle: Factors, lacking: Factors) -> Factors:
        """ΔB = L·Aᵀ(A·Aᵀ + λ‖A‖²/r)⁻¹, L being what the mean factors lack of the mean product."""
        a, lack = middle.down.double(), lacking.to(torch.float64)
        gram = a @ a.T
        held = gram + self.strength * gram.diagonal().mean() * torch.eye(len(a), dtype=a.dtype)
        change = torch.linalg.solve(held, a @ lack.down.T @ lack.up.T).T
        return Factors((middle.up.double() + change).float(), middle.down)
