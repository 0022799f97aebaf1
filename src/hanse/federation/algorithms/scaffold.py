"""SCAFFOLD (Karimireddy et al. 2020, 1910.06378, alg. 1, option II): control variates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import Combined, State
from hanse.federation.messages import ClientProfile, Order, Update
from hanse.randomness import Moment
from hanse.tensors.named import (
    Layout,
    Tensors,
    add,
    below,
    dot,
    each,
    layout,
    prefixed,
    scale,
    subtract,
)

MODEL, CONTROL = "model/", "control/"


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """Every client corrects its gradients by how its data differ from all clients' data.

    Client k steps along g − cₖ + c, then cₖ⁺ = cₖ − c + (x − yₖ)/Ση over its steps' rates; a step
    whose gradient was clipped counts as one of a smaller rate. The server steps
    x ← x + η·mean(yₖ − x) and c ← c + |S|/N·mean(cₖ⁺ − cₖ) over the clients S of the round, all of
    equal weight. While all c are zero it is FedAvg with equal weights. Only plain SGD follows a
    corrected gradient as it is.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MEAN})
    optimizers: ClassVar[tuple[str, ...]] = ("sgd",)
    learning_rate: PositiveFloat = 1.0  # η, of the server

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        return {"model": model, "control": each(torch.zeros_like, model)}

    def order(self, state: State, profile: ClientProfile, moment: Moment) -> Order:
        return Order(prefixed(MODEL, state["model"]) | prefixed(CONTROL, state["control"]))

    def expects(self, state: State, profile: ClientProfile, moment: Moment) -> Layout:
        return layout(self.order(state, profile, moment).tensors)

    def max_weight(self, profile: ClientProfile) -> float:
        return 1.0

    def measured(self, tensors: Tensors) -> dict[str, Tensors]:
        """Control variates are 1/Ση times as large, and would hide a change that is too large."""
        return {
            "norm of the change": below(tensors, MODEL),
            "norm of the control variate": below(tensors, CONTROL),
        }

    def train(self, order: Order, client: Client) -> Update:
        start, control = below(order.tensors, MODEL), below(order.tensors, CONTROL)
        own = client.memory or each(torch.zeros_like, control)
        correction = client.learner.beside(subtract(control, own))

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            return dot(correction, trained)  # its gradient is the correction

        change, fit = client.learner.change(start, penalty)
        if fit.sum_clipped_lr:
            moved = subtract(scale(change, -1 / fit.sum_clipped_lr), control)  # cₖ⁺ − cₖ
        else:  # a warm-up's first step has moved nothing, and says nothing of the gradient
            moved = each(torch.zeros_like, control)
        client.memory.update(add(own, moved))
        tensors = prefixed(MODEL, change) | prefixed(CONTROL, moved)
        return Update(tensors, fit.numbers(), weight=1.0)

    def personal(self, order: Order, client: Client) -> Tensors:
        return below(order.tensors, MODEL)

    def step(self, state: State, combined: Combined, server: Server) -> State:
        change, moved = (below(combined.tensors, prefix) for prefix in (MODEL, CONTROL))
        share = len(combined.clients) / server.num_clients
        return {
            "model": add(state["model"], scale(change, self.learning_rate)),
            "control": add(state["control"], scale(moved, share)),
        }
