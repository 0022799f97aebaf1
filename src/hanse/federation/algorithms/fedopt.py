"""FedOpt (Reddi et al. 2021, 2003.00295, alg. 2) and FedAvgM (Hsu et al. 2019, 1909.06335)."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.tensors.named import map_tensors

Decay = Annotated[float, Field(ge=0, lt=1)]
# Settings of each optimizer beside beta_1, with their defaults.
DEFAULTS: dict[str, dict[str, float]] = {
    "adam": {"learning_rate": 1e-3, "beta_2": 0.99, "tau": 1e-3},
    "yogi": {"learning_rate": 1e-3, "beta_2": 0.99, "tau": 1e-3},
    "adagrad": {"learning_rate": 1e-3, "tau": 1e-3},
    "momentum": {"learning_rate": 1.0},
}


def _shown(name: str) -> dict[str, str]:
    """The description of a setting whose default depends on the optimizer."""
    optimizers: dict[float, list[str]] = {}
    for optimizer, defaults in DEFAULTS.items():
        if name in defaults:
            optimizers.setdefault(defaults[name], []).append(optimizer)
    return {"description": "; ".join(f"{v} with {', '.join(o)}" for v, o in optimizers.items())}


@dataclass(frozen=True)
class FedOpt(FedAvg):
    """The mean change Δ, with its sign reversed, is the gradient of the server's optimizer.

    momentum: m ← β₁m + Δ, x ← x + ηm; with β₁ = 0 and η = 1 this is FedAvg. The others use
    m ← β₁m + (1 − β₁)Δ and the second moment v of Δ (not of m), and step by ηm/(√v + τ) without
    bias correction; v starts at τ². A setting that the optimizer does not use is refused.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    optimizer: Literal["adam", "yogi", "adagrad", "momentum"] = "adam"
    # η
    learning_rate: PositiveFloat | None = field(default=None, metadata=_shown("learning_rate"))
    beta_1: Decay = 0.9
    beta_2: Decay | None = field(default=None, metadata=_shown("beta_2"))
    # The adaptivity of the steps; a larger value is closer to plain momentum.
    tau: PositiveFloat | None = field(default=None, metadata=_shown("tau"))

    def __post_init__(self) -> None:
        defaults = DEFAULTS[self.optimizer]
        for name in ("learning_rate", "beta_2", "tau"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                raise UserError(
                    f"fedopt.{name} came as {getattr(self, name)}, but the optimizer "
                    f"{self.optimizer} has none; leave it out, or choose another optimizer."
                )

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        state: State = {"model": model, "m": map_tensors(torch.zeros_like, model)}
        if self.tau is None:
            return state
        start = self.tau**2
        return {**state, "v": map_tensors(lambda x: torch.full_like(x, start), model)}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        delta, rate = combined.tensors, self.learning_rate
        assert rate is not None  # set in __post_init__
        if self.tau is None:
            m = map_tensors(lambda m, d: self.beta_1 * m + d, state["m"], delta)
            return {"model": map_tensors(lambda x, m: x + rate * m, state["model"], m), "m": m}
        tau = self.tau
        m = map_tensors(lambda m, d: self.beta_1 * m + (1 - self.beta_1) * d, state["m"], delta)
        v = map_tensors(self._second_moment, state["v"], delta)
        model = map_tensors(lambda x, m, v: x + rate * m / (v.sqrt() + tau), state["model"], m, v)
        return {"model": model, "m": m, "v": v}

    def _second_moment(self, v: Tensor, d: Tensor) -> Tensor:
        square = d.square()
        if self.beta_2 is None:  # adagrad
            return v + square
        if self.optimizer == "yogi":
            return v - (1 - self.beta_2) * square * torch.sign(v - square)
        return self.beta_2 * v + (1 - self.beta_2) * square
