"""FedOpt (Reddi et al. 2021, 2003.00295, alg. 2) and FedAvgM (Hsu et al. 2019, 1909.06335)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from hanse.algorithms.fedavg import FedAvg
from hanse.interfaces import Server
from hanse.tensors import each
from hanse.values import Combined, State

Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class FedOpt(FedAvg):
    """The mean change Δ is the server optimizer's gradient, with its sign turned.

    momentum: m ← β₁m + Δ, x ← x + ηm; with β₁ = 0 and η = 1 this is FedAvg. The others keep
    m ← β₁m + (1 − β₁)Δ and the second moment v of Δ (not of m), and step by ηm/(√v + τ) without
    bias correction; v starts at τ².
    """

    optimizer: Literal["adam", "yogi", "adagrad", "momentum"] = "adam"
    learning_rate: PositiveFloat = 1e-3  # η; for momentum 1.0 is the natural choice
    beta_1: Decay = 0.9
    beta_2: Decay = 0.99  # adam and yogi only
    tau: PositiveFloat = 1e-3  # how much the steps adapt; larger is nearer to plain momentum

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        state: State = {"model": model, "m": each(torch.zeros_like, model)}
        if self.optimizer == "momentum":
            return state
        return {**state, "v": each(lambda x: torch.full_like(x, self.tau**2), model)}

    def step(self, state: State, combined: Combined, server: Server) -> State:
        delta = combined.tensors
        if self.optimizer == "momentum":
            m = each(lambda m, d: self.beta_1 * m + d, state["m"], delta)
            model = each(lambda x, m: x + self.learning_rate * m, state["model"], m)
            return {"model": model, "m": m}
        m = each(lambda m, d: self.beta_1 * m + (1 - self.beta_1) * d, state["m"], delta)
        v = each(self._second_moment, state["v"], delta)
        model = each(self._moved, state["model"], m, v)
        return {"model": model, "m": m, "v": v}

    def _second_moment(self, v: Tensor, d: Tensor) -> Tensor:
        square = d.square()
        if self.optimizer == "adagrad":
            return v + square
        if self.optimizer == "yogi":
            return v - (1 - self.beta_2) * square * torch.sign(v - square)
        return self.beta_2 * v + (1 - self.beta_2) * square

    def _moved(self, x: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return x + self.learning_rate * m / (v.sqrt() + self.tau)
