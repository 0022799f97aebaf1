"""FedPer (Arivazhagan et al. 2019, 1912.00818): some tensors are averaged, the others stay."""

from dataclasses import dataclass
from typing import Annotated

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
    """All tensors are trained; those that `share` names are averaged, and each client keeps its own
    of the others, which never leave it.

    A client is evaluated with what it keeps; the server, which sees none of it, with the tensors as
    they began.
    """

    share: Patterns  # regular expressions, found in the names of the tensors that travel

    def init(self, server: Server) -> State:
        state = super().init(server)
        for pattern in self.share:
            if not matching(state["model"], [pattern]):
                some = ", ".join(list(state["model"])[:4])
                raise UserError(
                    f"share: {pattern!r} is in no tensor's name; there are {some} and so on."
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
        change, fit = client.learner.change(self.personalized(instruction, client))
        client.memory.update(drop(client.learner.tensors(), instruction.tensors))
        shared = matching(change, self.share)
        return Update(shared, fit.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return {**client.learner.initial(), **client.memory, **instruction.tensors}
