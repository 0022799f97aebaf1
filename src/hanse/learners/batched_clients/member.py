"""One client's training, as one of several that train in the same forward passes."""

from dataclasses import dataclass, field
from typing import Any

from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.batched_layers import BOTTLENECK_TENSORS
from hanse.learners.batched_clients.stacked_adapters import stackable
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.learners.training.job import TrainingJob
from hanse.tensors.named import Tensors, digest

STEP = "step"  # the optimizer's count of steps; all other state has the shape of a tensor


@dataclass
class Member:
    """One client's training; `train` puts the trained tensors into `tensors`.

    frozen: tensors of the adapter that are not trained. residual: an update of the base's weights.
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
    def group(self) -> tuple[Any, ...]:
        """A key that is equal for clients that can train together."""
        residual = digest(self.residual) if self.residual else ""
        names = tuple(self.tensors), tuple(self.frozen)
        # Unlike LoRA's padding with zeros, a bottleneck's may learn: f(0) need not be 0.
        widths = tuple(len(t) for n, t in self.whole.items() if n.endswith(BOTTLENECK_TENSORS[0]))
        return id(self.backbone), *names, widths, self.job.settings.optim, residual

    @property
    def whole(self) -> Tensors:
        """All tensors of the adapter, trained and frozen ones."""
        return {**self.frozen, **self.tensors}

    @property
    def joins(self) -> bool:
        """Tell if this client can train with others; if not, it trains by itself."""
        # Dropout is drawn for padded rows: not for the two parts that an encoder-decoder gets, nor
        # for packed ones.
        parts = self.backbone.head.splits or self.job.settings.packing
        return (
            bool(self.whole)
            and self.job.objective.batchable
            and not self.job.objective.models
            and not (parts and self.attached.dropout > 0)
            and self._state_fits()
            and stackable(self.backbone.model, self.attached, self.whole)
        )

    def _state_fits(self) -> bool:
        """Tell if all of the optimizer's state belongs to tensors of these shapes."""
        for key, value in self.job.optimizer_state.items():
            name, _, state = key.rpartition(":")
            tensor = self.tensors.get(name)
            fits = tensor is not None and (state == STEP or value.shape == tensor.shape)
            if name not in self.frozen and not fits:
                return False
        return True
