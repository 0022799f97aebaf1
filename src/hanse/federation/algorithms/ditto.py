"""Ditto (Li et al. 2021, 2012.04221, alg. 1): beside the global model, each client its own."""

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
    """The global model is FedAvg's; client k also trains its own vₖ on Fₖ(v) + (λ/2)‖v − x‖².

    vₖ begins as the first x that the client is sent, never leaves it, and is what it is evaluated
    with. With λ = 0 it is local training; a large λ holds it to the global model. Clients train
    twice, on the same batches.
    """

    resets_optimizer: ClassVar[bool] = True  # the two trainings of a round would share one state
    strength: NonNegativeFloat = 0.1  # λ, how strongly a client's own is held to the global

    def train(self, instruction: Instruction, client: Client) -> Update:
        own: Memory = dict(client.memory) or dict(instruction.tensors)
        change, fit = client.learner.change(instruction.tensors)
        centre = client.learner.on_device(instruction.tensors)

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            return self.strength / 2 * squared_distance(trained, centre)

        client.learner.change(own, penalty)
        client.memory.update(client.learner.tensors())
        return Update(change, fit.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return dict(client.memory) or instruction.tensors
