"""FedAvg (McMahan et al. 2017, 1602.05629): local training, then the weighted mean of changes."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Combined, State
from hanse.federation.messages import Order, Update
from hanse.tensors.named import moved


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """x ← x + Σ pₖ(yₖ − x), where client k trains x to yₖ and pₖ = nₖ/Σn is its share of the data.

    nₖ counts the examples that a client has, not those that it saw in the round.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    forgetful: ClassVar[bool] = False

    def train(self, order: Order, client: Client) -> Update:
        change, fit = client.learner.change(order.tensors)
        return Update(change, fit.numbers(), weight=client.profile.examples)

    def step(self, state: State, combined: Combined, server: Server) -> State:
        return {**state, "model": moved(state["model"], combined.tensors)}
