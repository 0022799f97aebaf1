"""FedDyn (Acar et al. 2021, 2111.04263, alg. 1): dynamic regularization of each client's loss."""

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

    The server keeps h ← h − (α/N)·Σ(yₖ − x) over the clients of the round; x becomes the mean of
    their yₖ, with equal weights, minus h/α. When all clients agree, the mean loss is stationary.
    gₖ treats α(yₖ − x) as a gradient, which holds for SGD. AdamW's steps do not shrink with the
    gradient, so α would have no meaning.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({MEAN})
    optimizers: ClassVar[tuple[str, ...]] = ("momentum", "sgd")

    alpha: PositiveFloat = 0.1  # the strength of the regularization

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        return {"model": model, "h": map_tensors(torch.zeros_like, model)}

    def max_weight(self, profile: ClientProfile) -> float:
        return 1.0

    def train(self, instruction: Instruction, client: Client) -> Update:
        start = instruction.tensors
        memory = dict(client.memory) or map_tensors(torch.zeros_like, start)
        gradient, centre = client.learner.on_device(memory), client.learner.on_device(start)

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            distance = self.alpha / 2 * squared_distance(trained, centre)
            return distance - dot(gradient, trained)

        change, result = client.learner.change(start, penalty)
        client.memory.update(subtract(memory, scale(change, self.alpha)))
        return Update(change, result.numbers(), weight=1.0)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        share = len(combined.clients) / server.num_clients
        h = subtract(state["h"], scale(combined.tensors, self.alpha * share))
        mean = add(state["model"], combined.tensors)
        return {"model": subtract(mean, scale(h, 1 / self.alpha)), "h": h}
