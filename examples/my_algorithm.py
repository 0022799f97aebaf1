"""An algorithm that lives outside the package; in an experiment:

algorithm: {examples/my_algorithm.py:Democracy: {server_rate: 0.5}}
"""

from dataclasses import dataclass

from pydantic import PositiveFloat

from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import add, scale


@dataclass(frozen=True)
class Democracy(Algorithm):
    """FedAvg with one silo, one vote: the size of a silo's data does not count."""

    server_rate: PositiveFloat = 1.0  # how much of the mean change the server takes

    def train(self, instruction: Instruction, client: Client) -> Update:
        """At the client: train from what was sent, and send how it changed, with weight one."""
        change, result = client.learner.change(instruction.tensors)
        return Update(change, result.numbers(), weight=1.0)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        """At the server: take a part of the mean change."""
        change = scale(combined.tensors, self.server_rate)
        return {"model": add(state["model"], change)}
