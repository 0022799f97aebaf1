"""Ditto (Li et al. 2021, 2012.04221, alg. 1): a global model and one personal model each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import Tensors, squared_distance


@dataclass(frozen=True)
class Ditto(FedAvg):
    """The global model x is FedAvg's; client k also trains a model vₖ on Fₖ(v) + (λ/2)‖v − x‖².

    vₖ starts as the first x that the client gets, never leaves the client, and is evaluated there.
    λ = 0 is local training; a large λ keeps vₖ close to the global model. Clients train twice, on
    the same batches.
    """

    resets_optimizer: ClassVar[bool] = True  # both trainings of a round would share one state
    strength: NonNegativeFloat = 0.1  # λ, the pull of the global model on vₖ

    def train(self, instruction: Instruction, client: Client) -> Update:
        personal: Memory = dict(client.memory) or dict(instruction.tensors)
        change, result = client.learner.change(instruction.tensors)
        centre = client.learner.on_device(instruction.tensors)

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            return self.strength / 2 * squared_distance(trained, centre)

        client.learner.change(personal, penalty)
        client.memory.update(client.learner.tensors())
        return Update(change, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return dict(client.memory) or instruction.tensors
