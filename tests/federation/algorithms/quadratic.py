"""Clients whose losses are parabolas: every optimum is known, and local steps drift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty, TrainResult
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.loop import fit
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Batch:
    """Nothing is looked at: the loss is the same for every example."""

    examples: int

    @property
    def items(self) -> int:
        return self.examples

    tokens = items


class Parabola(Objective):
    """½·Σ curve·(w − centre)²."""

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return learner.forward(batch)


@dataclass(frozen=True)
class Quadratic:
    """Settings of a client; called with a moment and the optimizer's memory, it makes a learner.

    curve, centre: of its loss ½·Σ curve·(w − centre)². steps: those of a round. more: settings of
    its training, by default plain SGD without clipping. rounds: of the run, for a schedule.
    """

    curve: Sequence[float]
    centre: Sequence[float]
    steps: int = 10
    rate: float = 0.05
    examples: int = 4
    more: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1
    splits: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> "QuadraticLearner":
        return QuadraticLearner(self, context, optimizer_state)


class QuadraticLearner(Learner):
    """Full gradients, by default plain SGD without clipping; it starts at zero."""

    def __init__(self, own: Quadratic, context: RoundContext, optimizer_state: Memory) -> None:
        self.own, self.context, self.optimizer_state = own, context, optimizer_state
        self._live = {"w": Parameter(torch.zeros(len(own.curve)))}

    def parameters(self) -> Mapping[str, Parameter]:
        return self._live

    def examples(self, split: str) -> Sequence[Any]:
        return [(0,)] * self.own.examples if split == "train" else ()

    def batch(self, examples: Sequence[Any]) -> Batch:
        return Batch(len(examples))

    def forward(self, batch: Batch) -> Tensor:
        away = self._live["w"] - torch.tensor(self.own.centre)
        return (torch.tensor(self.own.curve) * away.square()).sum() / 2

    def fit(
        self,
        penalty: Penalty | None = None,
        objective: Objective | None = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainResult:
        own = self.own
        settings: dict[str, Any] = {"optim": "sgd", "max_grad_norm": 0, "max_steps": own.steps}
        settings |= {"learning_rate": own.rate, "per_device_train_batch_size": 1, **own.more}
        return fit(
            TrainingJob(
                self,
                split,
                TrainingSettings(**settings),
                Parabola(),
                self.context,
                own.rounds,
                penalty,
                self.optimizer_state,
            )
        )

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def optimum(clients: Mapping[str, Quadratic], weights: Sequence[float]) -> Tensor:
    """Where the weighted sum of the clients' losses is least."""
    curves = torch.tensor([own.curve for own in clients.values()], dtype=torch.float64)
    centres = torch.tensor([own.centre for own in clients.values()], dtype=torch.float64)
    shares = torch.tensor(weights, dtype=torch.float64)[:, None]
    return (shares * curves * centres).sum(0) / (shares * curves).sum(0)
