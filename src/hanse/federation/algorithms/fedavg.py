"""FedAvg (McMahan et al. 2017, 1602.05629): local training, then the weighted mean of changes."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import add_where_present


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """x ← x + Σ pₖ(yₖ − x), where client k trains x to yₖ and pₖ = nₖ/Σn is its share of the data.

    nₖ is the number of the client's examples, not of those that it trained on in the round.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    resets_optimizer: ClassVar[bool] = False

    def train(self, instruction: Instruction, client: Client) -> Update:
        change, result = client.learner.change(instruction.tensors)
        return Update(change, result.numbers(), weight=client.profile.examples)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {**state, "model": add_where_present(state["model"], combined.tensors)}
