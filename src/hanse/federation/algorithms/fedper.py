"""FedPer (Arivazhagan et al. 2019, 1912.00818): some tensors are averaged, the others stay."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.registry import PATTERNS
from hanse.tensors.named import Layout, Tensors, drop, layout, matching

Patterns = Annotated[tuple[str, ...], PATTERNS]


@dataclass(frozen=True)
class FedPer(FedAvg):
    """All tensors are trained. Those that match `share` are averaged; the others never leave their
    client.

    A client evaluates with its own tensors, the server with their initial values.
    """

    fits_once: ClassVar[bool] = True

    share: Patterns  # regular expressions that match names of the shared tensors

    def init(self, server: Server) -> State:
        state = super().init(server)
        for pattern in self.share:
            if not matching(state["model"], [pattern]):
                names = ", ".join(list(state["model"])[:4])
                raise UserError(
                    f"share: {pattern!r} is in no tensor's name; there are {names} and so on."
                )
        return state

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(self.shared(state))

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(self.shared(state))

    def shared(self, state: State) -> Tensors:
        return matching(state["model"], self.share)

    def train(self, instruction: Instruction, client: Client) -> Update:
        change, result = client.learner.change(self.personalized(instruction, client))
        client.memory.update(drop(client.learner.tensors(), instruction.tensors))
        shared = matching(change, self.share)
        return Update(shared, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return {**client.learner.initial(), **client.memory, **instruction.tensors}
