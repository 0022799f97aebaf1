"""FLoRA (Wang et al. 2024, 2409.05976): the clients' factors stacked, exact for any ranks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.algorithms.flexlora import FlexLoRA, gone_on_from
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Combined, State
from hanse.federation.messages import ClientProfile, Order, Update
from hanse.randomness import Moment
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL, A, B
from hanse.tensors.named import Tensors, prefixed, without


@dataclass(frozen=True)
class FLoRA(FlexLoRA):
    """W ← W + Σ pₖsₖBₖAₖ exactly, and every round begins with fresh A, and B at zero (alg. 1).

    What has been learned is a change of the base's weights, kept as factors: those of all clients
    side by side, brought down to what differs from zero, at most the size of the weights. It goes
    to every client in every round, since one need not have taken part in those before.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    forgetful: ClassVar[bool] = True  # the adapter begins afresh

    def init(self, server: Server) -> State:
        began = super().init(server)["model"]
        change = gone_on_from(began, server.learner.scaling)
        return {"model": _emptied(began), "residual": low_rank.tensors(change)}

    def model(self, state: State) -> Tensors:
        return {**state["model"], **prefixed(RESIDUAL, state["residual"])}

    def order(self, state: State, profile: ClientProfile, moment: Moment) -> Order:
        learned = prefixed(RESIDUAL, state["residual"])
        return Order({**low_rank.beside(state["model"]), **learned})

    def train(self, order: Order, client: Client) -> Update:
        draw = client.moment.generator("fresh adapter")
        empty = _emptied(client.learner.initial())
        start = {name: _drawn(t, draw) if name.endswith(A) else t for name, t in empty.items()}
        ended, fit = client.learner.trained({**start, **order.tensors})
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def personal(self, order: Order, client: Client) -> Tensors:
        return {**_emptied(client.learner.initial()), **order.tensors}

    def step(self, state: State, combined: Combined, server: Server) -> State:
        other = low_rank.beside(combined.tensors)
        change = without(combined.tensors, other)
        residual = low_rank.summed(state["residual"], change)
        return {"model": {**state["model"], **other}, "residual": residual}


def _emptied(adapter: Tensors) -> Tensors:
    """The adapter with B at zero: it changes nothing."""
    return {n: torch.zeros_like(t) if n.endswith(B) else t for n, t in adapter.items()}


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """A as PEFT draws it: uniform, within 1/√in."""
    bound = like.shape[1] ** -0.5
    return torch.empty_like(like).uniform_(-bound, bound, generator=generator)
