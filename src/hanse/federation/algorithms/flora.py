"""FLoRA (Wang et al. 2024, 2409.05976): the clients' factors stacked, exact for any ranks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.algorithms.flexlora import FlexLoRA, gone_on_from
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL, A, B
from hanse.tensors.named import Tensors, add_prefix, drop


@dataclass(frozen=True)
class FLoRA(FlexLoRA):
    """W ← W + Σ pₖsₖBₖAₖ exactly, and every round begins with fresh A, and B at zero (alg. 1).

    What has been learned is a change of the base's weights, kept as factors: those of all clients
    side by side, brought down to what differs from zero, at most the size of the weights. It goes
    to every client in every round, since one need not have taken part in those before.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    resets_optimizer: ClassVar[bool] = True  # the adapter begins afresh

    def init(self, server: Server) -> State:
        began = super().init(server)["model"]
        change = gone_on_from(began, server.learner.scaling)
        return {"model": _emptied(began), "residual": low_rank.tensors(change)}

    def model(self, state: State) -> Tensors:
        return {**state["model"], **add_prefix(RESIDUAL, state["residual"])}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        learned = add_prefix(RESIDUAL, state["residual"])
        return Instruction({**low_rank.non_factor_tensors(state["model"]), **learned})

    def train(self, instruction: Instruction, client: Client) -> Update:
        draw = client.context.generator("fresh adapter")
        empty = _emptied(client.learner.initial())
        start = {name: _drawn(t, draw) if name.endswith(A) else t for name, t in empty.items()}
        ended, fit = client.learner.trained({**start, **instruction.tensors})
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return {**_emptied(client.learner.initial()), **instruction.tensors}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        other = low_rank.non_factor_tensors(combined.tensors)
        change = drop(combined.tensors, other)
        residual = low_rank.summed(state["residual"], change)
        return {"model": {**state["model"], **other}, "residual": residual}


def _emptied(adapter: Tensors) -> Tensors:
    """The adapter with B at zero: it changes nothing."""
    return {n: torch.zeros_like(t) if n.endswith(B) else t for n, t in adapter.items()}


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """A as PEFT draws it: uniform, within 1/√in."""
    bound = like.shape[1] ** -0.5
    return torch.empty_like(like).uniform_(-bound, bound, generator=generator)
