"""Counts, losses and weights of gradients of a training that is under way."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hanse.federation.interfaces.results import TrainResult
from hanse.observability.steps import Training

INTEGERS = ("examples", "tokens", "items")
COUNTED = (*INTEGERS, "sum_lr", "velocity", "sum_a")  # on the host
SUMMED = ("losses", "sum_clipped_lr")  # on the device: reading waits for all steps under way


@dataclass
class TrainingProgress:
    """Sums over the steps of a training so far.

    losses: Σ over items. velocity: that of SGD if every gradient were 1; sum_a: the distance that
        SGD would have moved then.
    """

    momentum: float = 0.0
    start: float = field(default_factory=time.perf_counter)
    examples: int = 0
    tokens: int = 0
    items: int = 0
    sum_lr: float = 0.0
    velocity: float = 0.0
    sum_a: float = 0.0
    losses: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    sum_clipped_lr: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def numbers(self) -> dict[str, float]:
        """The counts that lie on the host, by name."""
        return {name: getattr(self, name) for name in COUNTED}

    @property
    def sums(self) -> dict[str, torch.Tensor]:
        """The sums that lie on the device, by name."""
        return {name: getattr(self, name) for name in SUMMED}

    def restore(self, numbers: Mapping[str, float], sums: Mapping[str, torch.Tensor]) -> None:
        """Continue from the numbers and sums of another process that did the same training."""
        for name in COUNTED:
            setattr(self, name, int(numbers[name]) if name in INTEGERS else numbers[name])
        for name in SUMMED:
            setattr(self, name, sums[name])

    def add(
        self, batches: Sequence[Any], losses: torch.Tensor, rate: float, share: torch.Tensor | float
    ) -> None:
        """Add one step; share: the factor by which clipping has multiplied its gradient."""
        self.losses = losses + self.losses  # the zero at first may lie on the host
        self.sum_clipped_lr = rate * share + self.sum_clipped_lr
        self.velocity = self.momentum * self.velocity + 1
        self.sum_a += rate * self.velocity
        self.sum_lr += rate
        self.examples += sum(batch.examples for batch in batches)
        self.tokens += sum(batch.tokens for batch in batches)
        self.items += sum(batch.items for batch in batches)

    def result(
        self,
        steps: int,
        spent: Mapping[str, float],
        sums_gradients: bool,
        joules: float | None = None,
    ) -> TrainResult:
        """The result of a finished training.

        spent: seconds by activity. sums_gradients: the change is −Σ aᵢgᵢ, so sum_a is reported.
        joules: of the training; None: not measured.
        """
        return TrainResult(
            steps,
            self.sum_lr,
            self.examples,
            self.tokens,
            float(self.losses) / max(1, self.items),
            spent,
            float(self.sum_clipped_lr),
            self.sum_a if sums_gradients else None,
            joules,
        )


def with_measurements(step: Training, clients: Sequence[TrainingProgress]) -> Training:
    """The step with the mean loss and the speed of clients that train at the same time."""
    items = sum(client.items for client in clients)
    if not items:
        return step
    loss = sum(float(client.losses) for client in clients) / items
    seconds = time.perf_counter() - min(client.start for client in clients)
    tokens = sum(client.tokens for client in clients)
    return replace(step, loss=loss, tokens_per_second=tokens / seconds)
