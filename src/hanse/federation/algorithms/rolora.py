"""RoLoRA (Chen et al. 2024, 2502.01755): trains A and B in alternating rounds."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B, refuse_other_than_lora
from hanse.tensors.named import Layout, Tensors, drop, layout


@dataclass(frozen=True)
class RoLoRA(FedAvg):
    """In odd rounds all clients train B with A frozen, in even rounds A with B frozen.

    The frozen factor is the same at all clients, so the mean of the other one gives the exact mean
    product. Unlike in FFA-LoRA, A is trained, too. Clients send half of LoRA's bytes; they receive
    both factors, since a client may have missed the round before.
    """

    fits_once: ClassVar[bool] = True
    resets_optimizer: ClassVar[bool] = (
        True  # the other factor has changed since this one was trained
    )
    needs_factors: ClassVar[bool] = True

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__, products=False)
        return super().init(server)

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_trained(state["model"], context))

    def train(self, instruction: Instruction, client: Client) -> Update:
        trained = _trained(instruction.tensors, client.context)
        client.learner.freeze(drop(instruction.tensors, trained))
        return super().train(Instruction(trained), client)


def _trained(model: Tensors, context: RoundContext) -> Tensors:
    """All tensors but the frozen factor: A in the first round, since B = 0 gives it no gradient."""
    frozen = A if context.round % 2 else B
    return {name: tensor for name, tensor in model.items() if not name.endswith(frozen)}
