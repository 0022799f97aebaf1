"""One client's training as a cohort is asked to do it."""

from dataclasses import dataclass, field
from typing import Any

from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.stacked_adapters import stackable
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.learners.training.job import TrainingJob
from hanse.tensors.named import Tensors, digest

STEP = "step"  # the optimizer's count of its steps; its other state is as large as the tensors


@dataclass
class Member:
    """One client's training; `train` leaves the trained tensors in `tensors`.

    frozen: the rest of the adapter, which is not trained. residual: of the base's weights.
    """

    job: TrainingJob
    backbone: Backbone
    adapter: str
    tensors: Tensors
    frozen: Tensors = field(default_factory=dict)
    residual: Tensors = field(default_factory=dict)

    @property
    def attached(self) -> AttachedAdapter:
        """The record of its adapter in the shared model."""
        return self.backbone.adapters[self.adapter]

    @property
    def alike(self) -> tuple[Any, ...]:
        """What clients must share to train together."""
        changed = digest(self.residual) if self.residual else ""
        names = tuple(self.tensors), tuple(self.frozen)
        return id(self.backbone), *names, self.job.settings.optim, changed

    @property
    def whole(self) -> Tensors:
        """The adapter, trained and frozen tensors."""
        return {**self.frozen, **self.tensors}

    @property
    def joins(self) -> bool:
        """Whether a cohort can do what this client asks for; if not, it trains by itself."""
        kept = self.job.optimizer_state.items()
        states = ((*key.rpartition(":")[::2], value) for key, value in kept)
        whole = all(
            name in self.frozen
            or (name in self.tensors and (state == STEP or value.shape == self.tensors[name].shape))
            for name, state, value in states
        )
        # Dropout is drawn for a row's own length, which a part of it does not have in a cohort.
        drops = self.attached.dropout > 0
        apart = self.backbone.head.splits and drops
        shared = self.job.objective.batchable and not apart
        return whole and shared and stackable(self.backbone.model, self.attached, self.whole)
