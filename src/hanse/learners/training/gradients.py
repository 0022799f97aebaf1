"""The gradients of a training's steps: by default those of the mean loss over a batch."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from hanse.learners.training.job import TrainingJob
from hanse.learners.training.timer import Stopwatch


class Gradients(Protocol):
    """Puts the gradient of each step of a training into its parameters.

    steps: their number. kind: a text that tells a training by such gradients from others.
    """

    @property
    def steps(self) -> int: ...

    @property
    def kind(self) -> str: ...

    def compute(self, step: int, watch: Stopwatch) -> tuple[Sequence[Any], torch.Tensor]:
        """Set the gradients of one step; return its micro-batches and Σ of the items' losses."""


class MeanGradients:
    """Gradients of the mean loss over all items of a step's micro-batches."""

    kind = ""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self._examples = job, job.sample_batches()

    @property
    def steps(self) -> int:
        """The number of steps of the round."""
        return len(self._examples)

    def compute(self, step: int, watch: Stopwatch) -> tuple[Sequence[Any], torch.Tensor]:
        """Add the gradients of one step; return its micro-batches and Σ of the items' losses."""
        batches = self.job.batches(step, self._examples[step])
        watch.lap("data")
        items = sum(batch.items for batch in batches)
        total: torch.Tensor | None = None
        for batch in batches:
            loss = self.job.objective.loss(self.job.learner, batch)
            watch.lap("forward")
            (loss * (batch.items / items)).backward()
            watch.lap("backward")
            part = loss.detach() * batch.items
            total = part if total is None else total + part
        assert total is not None  # a step has at least one micro-batch
        return batches, total
