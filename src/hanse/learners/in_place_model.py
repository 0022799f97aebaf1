"""A base model without an adapter, whose weights change in place, as a learner."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.constants import Constants
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.learners import adapter_folder
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.injection import adapter_files
from hanse.learners.models import start_weights
from hanse.learners.models.model_files import hub_id
from hanse.learners.models.start_weights import StartWeights
from hanse.observability.progress import track
from hanse.observability.steps import Training
from hanse.tensors.named import Tensors, add_prefix, digest, refuse_unlike, strip_prefix

START = "start/"  # before the names of a new head's weights, which the model's files lack


def split(saved: Tensors) -> tuple[Tensors, Tensors]:
    """A change of the weights, and the start weights beside it that the model's files lack."""
    change = {name: tensor for name, tensor in saved.items() if not name.startswith(START)}
    return change, strip_prefix(saved, START)


@dataclass
class InPlaceModel(AdaptedModel):
    """A learner that shares one copy of the weights with all others of its backbone.

    Its trained tensors are a change of the weights along random directions: `seed` and `amounts`.
    loaded: the change that was loaded last.
    """

    loaded: Tensors = field(default_factory=dict)

    @property
    def whole_model(self) -> WholeModel:
        return _SharedWeights(self)

    def load(self, tensors: Tensors) -> None:
        """Set the weights to what a change makes of those before any training.

        Tensors with the prefix START take the place of start weights that no file has. Raises
        UserError for tensors that do not fit the model.
        """
        self.loaded, head = split(tensors)
        if head:
            refuse_unlike(self.start_weights.kept, head)
            self.start_weights.keep(head)
        self.whole_model.replay(self.loaded)

    @property
    def start_weights(self) -> StartWeights:
        """The weights before any training."""
        assert self.backbone.start_weights is not None  # since it has no adapter
        return self.backbone.start_weights

    def initial(self) -> Tensors:
        return {}

    def constants(self) -> Constants:
        return Constants()

    @property
    def trained_count(self) -> int:
        return self.backbone.weights

    @property
    def active_adapter(self) -> str | None:
        return None

    def save(self, folder: Path, without: Collection[str] = ()) -> None:
        """Write the change that was loaded last, with the tokenizer and a classifier's labels."""
        base, task = hub_id(self.backbone.name), self.backbone.head.task
        adapter_files.save_change(self._saved, folder, base, task)
        adapter_folder.save_texts(self.backbone, folder)

    @property
    def _saved(self) -> Tensors:
        kept = {name: tensor.cpu() for name, tensor in self.start_weights.kept.items()}
        return {**self.loaded, **add_prefix(START, kept)}

    def reopen(self, folder: Path) -> None:
        _, tensors = adapter_files.read(folder)
        if digest(tensors) != digest(self._saved):
            raise UserError(f"the saved change in {folder} is not the trained one.")


@dataclass(frozen=True)
class _SharedWeights(WholeModel):
    """The weights of a learner's backbone, which all its learners share."""

    learner: InPlaceModel

    @property
    def learning_rate(self) -> float:
        return self.learner.training.learning_rate

    @property
    def steps(self) -> int:
        return self.learner.training.steps(len(self.learner.examples("train")))

    def weights(self) -> Mapping[str, Tensor]:
        """The weights by name; the caller may change them, so the next replay begins anew."""
        self.learner.start_weights.applied = None
        return start_weights.live(self.learner.backbone.model)

    def replay(self, change: Tensors) -> None:
        start, wanted = self.learner.start_weights, digest(change)
        if start.applied != wanted:  # a replay takes as long as many steps
            super().replay(change)
            start.applied = wanted

    def restore(self) -> None:
        self.learner.start_weights.restore(self.learner.backbone.model)

    def round_batches(self) -> Iterator[Sequence[Any]]:
        job = self.learner.job()
        steps = job.sample_batches()
        client = tuple(filter(None, [job.context.client]))
        for step in track(range(len(steps)), Training(client, total=len(steps))):
            yield job.batches(step, steps[step])

    @torch.inference_mode()
    def loss(self, batches: Sequence[Any]) -> float:
        learner, items = self.learner, sum(batch.items for batch in batches)
        losses = (learner.objective.loss(learner, b) * (b.items / items) for b in batches)
        return float(sum(losses))
