"""FFA-LoRA (Sun et al. 2024, 2403.12313): A is frozen, and only B is trained and sent."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, refuse_other_than_lora
from hanse.tensors.named import Layout, Tensors, drop, layout


@dataclass(frozen=True)
class FFALoRA(FedAvg):
    """B ← B + Σ pₖ(Bₖ − B) with one random A for all clients, so Σ pₖBₖA is the exact mean product.

    It needs half of LoRA's bytes both ways, since every client draws the same A. Updates are linear
    in the product, so secure sums and noise for privacy keep their meaning.
    """

    fits_once: ClassVar[bool] = True
    redraws: ClassVar[bool] = True  # A
    needs_factors: ClassVar[bool] = True

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__, products=False)
        return super().init(server)

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(_sent(state["model"]))

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_sent(state["model"]))

    def train(self, instruction: Instruction, client: Client) -> Update:
        client.learner.freeze(drop(client.learner.initial(), instruction.tensors))
        return super().train(instruction, client)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return {**client.learner.initial(), **instruction.tensors}


def _sent(model: Tensors) -> Tensors:
    """All but A."""
    return {name: tensor for name, tensor in model.items() if not name.endswith(A)}
