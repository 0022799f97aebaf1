"""FedDyn (Acar et al. 2021, 2111.04263, alg. 1): each client's loss is bent towards the others'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors.named import add, dot, map_tensors, scale, squared_distance, subtract


@dataclass(frozen=True)
class FedDyn(FedAvg):
    """Client k minimizes Fₖ(w) − ⟨gₖ, w⟩ + (α/2)‖w − x‖², and then gₖ ← gₖ − α(yₖ − x).

    The server keeps h ← h − (α/N)·Σ(yₖ − x) over the clients of the round, and x becomes the mean
    of their yₖ, all of equal weight, less h/α. Where all agree in the end, the mean loss is
    stationary. gₖ takes α(yₖ − x) for a gradient, as it is after steps of SGD; AdamW's steps do not
    shrink with the gradient, and α would mean nothing.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MEAN})
    optimizers: ClassVar[tuple[str, ...]] = ("momentum", "sgd")

    alpha: PositiveFloat = 0.1  # how strongly clients are held together

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        return {"model": model, "h": map_tensors(torch.zeros_like, model)}

    def max_weight(self, profile: ClientProfile) -> float:
        return 1.0

    def train(self, instruction: Instruction, client: Client) -> Update:
        start = instruction.tensors
        own = dict(client.memory) or map_tensors(torch.zeros_like, start)
        gradient, centre = client.learner.on_device(own), client.learner.on_device(start)

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            held = self.alpha / 2 * squared_distance(trained, centre)
            return held - dot(gradient, trained)

        change, fit = client.learner.change(start, penalty)
        client.memory.update(subtract(own, scale(change, self.alpha)))
        return Update(change, fit.numbers(), weight=1.0)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        share = len(combined.clients) / server.num_clients
        h = subtract(state["h"], scale(combined.tensors, self.alpha * share))
        mean = add(state["model"], combined.tensors)
        return {"model": subtract(mean, scale(h, 1 / self.alpha)), "h": h}
