"""The objective of a model that learns distributions of public rows which others have sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hanse.federation.distillation.public_logits import PublicRows
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.tensors import top_k
from hanse.tensors.divergence import divergence
from hanse.tensors.named import Tensors


@dataclass(frozen=True)
class Targeted:
    """A batch with the target of each of its rows of logits."""

    batch: Any
    target: Tensors

    @property
    def items(self) -> int:
        """The number of its rows of logits."""
        return len(self.target[top_k.INDICES])

    @property
    def tokens(self) -> int:
        """The number of its tokens."""
        return int(self.batch.tokens)

    @property
    def examples(self) -> int:
        """The number of its examples."""
        return int(self.batch.examples)


@dataclass(frozen=True)
class Imitation(Objective):
    """The mean of T²·KL(target ‖ model) over rows of logits; classes left out count as one class.

    rows: of the public examples. target: of these rows, at temperature T (`predictions`).
    """

    rows: PublicRows
    target: Tensors
    temperature: float = 1.0

    def with_targets(self, batch: Any, places: Sequence[int]) -> Targeted:
        index = self.rows.at(places)
        return Targeted(batch, {name: part[index] for name, part in self.target.items()})

    def loss(self, learner: Learner, batch: Targeted) -> Tensor:
        logits = self.rows.logits(learner, batch.batch) / self.temperature
        student = top_k.log_probabilities(top_k.of_classes(logits, batch.target[top_k.INDICES]))
        target = top_k.log_probabilities(batch.target).to(student.device)
        return self.temperature**2 * divergence(target, student).mean()
