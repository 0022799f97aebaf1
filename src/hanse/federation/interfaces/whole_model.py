"""The role of a whole model: all its weights change in place, without gradients."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from hanse.tensors import directions
from hanse.tensors.named import Tensors

MOST_STEPS = 1_000_000  # of a round


class WholeModel(ABC):
    """All weights of a learner's model, for algorithms that train without an adapter.

    There is one copy of the weights in memory, which the server and all simulated clients of a
    process share; whoever uses it begins with `restore` or `replay`.
    """

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """The learning rate of each step."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """The number of steps of a round."""

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """The weights by name (the live ones, contiguous, on one device)."""

    @abstractmethod
    def restore(self) -> None:
        """Set the weights to their values before any training."""

    @abstractmethod
    def round_batches(self) -> Iterator[Sequence[Any]]:
        """The micro-batches of each step of the round, by the settings and the context."""

    @abstractmethod
    def loss(self, batches: Sequence[Any]) -> float:
        """The mean loss over all items of a step's micro-batches, in inference mode."""

    def replay(self, change: Tensors) -> None:
        """Set the weights to w₀ + Σ aⱼ·z(seed, j).

        change: as `directions.read` takes it; empty for w₀ alone. Raises UserError for anything
            else, before a weight changes.
        """
        seed, amounts = directions.read(change)
        self.restore()
        directions.add(self.weights(), seed, amounts)
