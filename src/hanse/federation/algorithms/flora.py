"""FLoRA (Wang et al. 2024, 2409.05976): the clients' factors stacked, exact for any ranks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.algorithms.flexlora import FlexLoRA, trained_products
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import WEIGHED
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import RESIDUAL, A, B
from hanse.tensors.named import Tensors, add_prefix, drop


@dataclass(frozen=True)
class FLoRA(FlexLoRA):
    """W ← W + Σ pₖsₖBₖAₖ exactly; every round starts with a random A and with B = 0 (alg. 1).

    The learned change of the base's weights is kept as factors: those of all clients stacked, then
    reduced to the non-zero singular values, so that it never exceeds the size of the weights. Every
    client gets it in every round, since a client may have missed the rounds before.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    resets_optimizer: ClassVar[bool] = True  # the adapter starts fresh

    def init(self, server: Server) -> State:
        model = super().init(server)["model"]
        change = trained_products(model, server.learner.scaling)
        return {"model": _emptied(model), "residual": low_rank.tensors(change)}

    def model(self, state: State) -> Tensors:
        return {**state["model"], **add_prefix(RESIDUAL, state["residual"])}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        residual = add_prefix(RESIDUAL, state["residual"])
        return Instruction({**low_rank.non_factor_tensors(state["model"]), **residual})

    def train(self, instruction: Instruction, client: Client) -> Update:
        generator = client.context.generator("fresh adapter")
        empty = _emptied(client.learner.initial())
        start = {n: _drawn(t, generator) if n.endswith(A) else t for n, t in empty.items()}
        tensors, result = client.learner.trained({**start, **instruction.tensors})
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return {**_emptied(client.learner.initial()), **instruction.tensors}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        other = low_rank.non_factor_tensors(combined.tensors)
        change = drop(combined.tensors, other)
        residual = low_rank.summed(state["residual"], change)
        return {"model": {**state["model"], **other}, "residual": residual}


def _emptied(adapter: Tensors) -> Tensors:
    """The adapter with B = 0, which has no effect."""
    return {n: torch.zeros_like(t) if n.endswith(B) else t for n, t in adapter.items()}


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random A, drawn as in PEFT: uniform within ±1/√in."""
    bound = like.shape[1] ** -0.5
    return torch.empty_like(like).uniform_(-bound, bound, generator=generator)
