"""FedNova (Wang et al. 2020, 2007.07481): clients that take more steps do not pull more."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.algorithms.fedavg import FedAvg
from hanse.interfaces import Client, Server
from hanse.messages import Order, Update
from hanse.tensors import add, scale
from hanse.values import Combined, State


@dataclass(frozen=True)
class FedNova(FedAvg):
    """x ← x + (Σ pₖτₖ)·Σ pₖ(yₖ − x)/τₖ, client k having taken τₖ optimizer steps.

    FedAvg's mean would be led by the clients with most steps, to an optimum that is not that of the
    weighted loss. With equal τₖ this is FedAvg.
    """

    reports: ClassVar[tuple[str, ...]] = ("steps",)

    def train(self, order: Order, client: Client) -> Update:
        change, fit = client.learner.change(order.tensors)
        return Update(scale(change, 1 / fit.steps), fit.numbers(), weight=client.profile.examples)

    def step(self, state: State, combined: Combined, server: Server) -> State:
        steps = combined.numbers["steps"]  # Σ pₖτₖ
        return {**state, "model": add(state["model"], scale(combined.tensors, steps))}
