"""FedAvg (McMahan et al. 2017, 1602.05629): local training, then the weighted mean of changes."""

from dataclasses import dataclass

from hanse.interfaces import Algorithm, Client, Server
from hanse.messages import Order, Update
from hanse.tensors import add
from hanse.values import Combined, State


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """x ← x + Σ pₖ(yₖ − x), where client k trains x to yₖ and pₖ is its share of the examples."""

    def train(self, order: Order, client: Client) -> Update:
        change, fit = client.learner.change(order.tensors)
        return Update(change, fit.numbers(), weight=fit.examples)

    def step(self, state: State, combined: Combined, server: Server) -> State:
        return {**state, "model": add(state["model"], combined.tensors)}
