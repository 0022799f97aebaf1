"""What a training has seen on the way: counts, losses, and the weight of its gradients."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hanse.federation.interfaces.results import TrainResult
from hanse.observability.steps import Training

WHOLE = ("examples", "tokens", "items")
COUNTED = (*WHOLE, "sum_lr", "velocity", "sum_a")  # on the host
SUMMED = ("losses", "sum_clipped_lr")  # on the device: reading waits for all steps under way


@dataclass
class TrainingProgress:
    """What training has seen so far.

    velocity: SGD's, had every gradient been one; sum_a: how far that has moved.
    losses: Σ over items.
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
        """What is counted, as plain numbers."""
        return {name: getattr(self, name) for name in COUNTED}

    @property
    def sums(self) -> dict[str, torch.Tensor]:
        """What is summed on the device."""
        return {name: getattr(self, name) for name in SUMMED}

    def go_on(self, numbers: Mapping[str, float], sums: Mapping[str, torch.Tensor]) -> None:
        """Take over what another process had seen of the same training: its numbers and sums."""
        for name in COUNTED:
            setattr(self, name, int(numbers[name]) if name in WHOLE else numbers[name])
        for name in SUMMED:
            setattr(self, name, sums[name])

    def add(
        self, batches: Sequence[Any], losses: torch.Tensor, rate: float, share: torch.Tensor | float
    ) -> None:
        """Count a step; share: what clipping has left of its gradient."""
        self.losses = losses + self.losses  # the zero at first may lie on the host
        self.sum_clipped_lr = rate * share + self.sum_clipped_lr
        self.velocity = self.momentum * self.velocity + 1
        self.sum_a += rate * self.velocity
        self.sum_lr += rate
        self.examples += sum(batch.examples for batch in batches)
        self.tokens += sum(batch.tokens for batch in batches)
        self.items += sum(batch.items for batch in batches)

    def fit(self, steps: int, spent: Mapping[str, float], sums_gradients: bool) -> TrainResult:
        """All of it, when training is done.

        spent: seconds by what was done. sums_gradients: whether the change is −Σ aᵢgᵢ.
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
        )


def with_measurements(step: Training, seen: Sequence[TrainingProgress]) -> Training:
    """The step with the mean loss and the speed of clients that train at the same time."""
    items = sum(client.items for client in seen)
    if not items:
        return step
    loss = sum(float(client.losses) for client in seen) / items
    seconds = time.perf_counter() - min(client.start for client in seen)
    tokens = sum(client.tokens for client in seen)
    return replace(step, loss=loss, tokens_per_second=tokens / seconds)
