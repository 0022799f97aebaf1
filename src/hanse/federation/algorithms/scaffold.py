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
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import (
    Layout,
    Tensors,
    add,
    add_prefix,
    dot,
    layout,
    map_tensors,
    scale,
    strip_prefix,
    subtract,
)

MODEL, CONTROL = "model/", "control/"


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """Each client corrects its gradients by the difference of its data from all clients' data.

    Client k steps along g − cₖ + c, and then sets cₖ⁺ = cₖ − c + (x − yₖ)/Ση, with Ση over its
    steps' rates; a step with a clipped gradient counts as one with a smaller rate. The server steps
    x ← x + η·mean(yₖ − x) and c ← c + |S|/N·mean(cₖ⁺ − cₖ) over the clients S of the round, with
    equal weights. While all c are zero this is FedAvg with equal weights. Only plain SGD follows a
    corrected gradient without changing it.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({MEAN})
    optimizers: ClassVar[tuple[str, ...]] = ("sgd",)
    learning_rate: PositiveFloat = 1.0  # η, of the server

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        return {"model": model, "control": map_tensors(torch.zeros_like, model)}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(
            add_prefix(MODEL, state["model"]) | add_prefix(CONTROL, state["control"])
        )

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(self.instruction(state, profile, context).tensors)

    def max_weight(self, profile: ClientProfile) -> float:
        return 1.0

    def measured(self, tensors: Tensors) -> dict[str, Tensors]:
        """Change and control variate separately: the variate is 1/Ση times as large."""
        return {
            "norm of the change": strip_prefix(tensors, MODEL),
            "norm of the control variate": strip_prefix(tensors, CONTROL),
        }

    def train(self, instruction: Instruction, client: Client) -> Update:
        start, control = (
            strip_prefix(instruction.tensors, MODEL),
            strip_prefix(instruction.tensors, CONTROL),
        )
        variate = client.memory or map_tensors(torch.zeros_like, control)  # cₖ
        correction = client.learner.on_device(subtract(control, variate))

        def penalty(trained: Mapping[str, Tensor]) -> Tensor:
            return dot(correction, trained)  # its gradient is the correction

        change, result = client.learner.change(start, penalty)
        if result.sum_clipped_lr:
            moved = subtract(scale(change, -1 / result.sum_clipped_lr), control)  # cₖ⁺ − cₖ
        else:  # the first step of a warm-up has rate 0: there is no change to divide
            moved = map_tensors(torch.zeros_like, control)
        client.memory.update(add(variate, moved))
        tensors = add_prefix(MODEL, change) | add_prefix(CONTROL, moved)
        return Update(tensors, result.numbers(), weight=1.0)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return strip_prefix(instruction.tensors, MODEL)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        change, moved = (strip_prefix(combined.tensors, prefix) for prefix in (MODEL, CONTROL))
        share = len(combined.clients) / server.num_clients
        return {
            "model": add(state["model"], scale(change, self.learning_rate)),
            "control": add(state["control"], scale(moved, share)),
        }
