"""FFA-LoRA (Sun et al. 2024, 2403.12313): A stays as it began, and only B is learned and sent."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile, Order, Update
from hanse.randomness import Moment
from hanse.tensors.low_rank import A, refuse_other_than_lora
from hanse.tensors.named import Layout, Tensors, layout, without


@dataclass(frozen=True)
class FFALoRA(FedAvg):
    """B ← B + Σ pₖ(Bₖ − B) with one random A for all: Σ pₖBₖA is then exactly the mean product.

    Half of LoRA's bytes both ways, since every client draws the same A for itself. What is sent is
    linear in the product: sums without single updates, and noise for privacy, keep their meaning.
    """

    redraws: ClassVar[bool] = True  # A

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__, products=False)
        return super().init(server)

    def order(self, state: State, profile: ClientProfile, moment: Moment) -> Order:
        return Order(_sent(state["model"]))

    def expects(self, state: State, profile: ClientProfile, moment: Moment) -> Layout:
        return layout(_sent(state["model"]))

    def train(self, order: Order, client: Client) -> Update:
        client.learner.freeze(without(client.learner.initial(), order.tensors))
        return super().train(order, client)

    def personal(self, order: Order, client: Client) -> Tensors:
        return {**client.learner.initial(), **order.tensors}


def _sent(model: Tensors) -> Tensors:
    """All but A."""
    return {name: tensor for name, tensor in model.items() if not name.endswith(A)}
