"""FedProx (Li et al. 2020, 1812.06127): FedAvg with clients kept close to the global model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import squared_distance


@dataclass(frozen=True)
class FedProx(FedAvg):
    """Clients minimize their loss + (μ/2)‖w − x‖², where x is the global model (eq. 2)."""

    fits_once: ClassVar[bool] = True

    mu: NonNegativeFloat = 0.01  # μ; 0 is FedAvg

    def train(self, instruction: Instruction, client: Client) -> Update:
        start = client.learner.on_device(instruction.tensors)

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            return self.mu / 2 * squared_distance(trained, start)

        change, result = client.learner.change(instruction.tensors, penalty)
        return Update(change, result.numbers(), weight=client.profile.examples)
