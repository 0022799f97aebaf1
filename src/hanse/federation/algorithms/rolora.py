"""RoLoRA (Chen et al. 2024, 2502.01755): A and B are learned in turn, a round each."""

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
    """In odd rounds all learn B with A as it is, in even ones A with B as it is.

    One factor is the same at all clients, so the mean of the other gives exactly the mean product,
    and, other than with FFA-LoRA, A is learned, too. Clients send half of LoRA's bytes; both
    factors go down, since a client need not have taken part in the round before.
    """

    resets_optimizer: ClassVar[bool] = (
        True  # the other factor has changed since this one was trained
    )

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__, products=False)
        return super().init(server)

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_learned(state["model"], context))

    def train(self, instruction: Instruction, client: Client) -> Update:
        learned = _learned(instruction.tensors, client.context)
        client.learner.freeze(drop(instruction.tensors, learned))
        return super().train(Instruction(learned), client)


def _learned(model: Tensors, context: RoundContext) -> Tensors:
    """All but the factor that rests: A first, since with B at zero it would get no gradient."""
    resting = A if context.round % 2 else B
    return {name: tensor for name, tensor in model.items() if not name.endswith(resting)}
