"""The role of what protects the rows of one training, as a learner sees it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.lazy_imports import lazy_imports

with lazy_imports():
    import torch


@dataclass(frozen=True)
class Sampling:
    """The rows of a training's steps: in each step each row is drawn by itself (Poisson sampling).

    rows: of the client. probability: q, of each row in each step. steps: of the training.
    """

    rows: int
    probability: float
    steps: int

    @property
    def expected(self) -> float:
        """The number of rows in a step, on average."""
        return self.probability * self.rows


class RowProtection(ABC):
    """The secret draw of rows, the limit of each row's gradient, and the noise of a training.

    A step's gradient is (Σᵢ sᵢgᵢ + noise) ÷ `Sampling.expected`, over the rows i that are drawn,
    with gᵢ the gradient of one row's loss.
    """

    @abstractmethod
    def draw(self, sampling: Sampling) -> Sequence[int]:
        """The rows of the next step; may be none."""

    @abstractmethod
    def shares(self, norms: "torch.Tensor") -> "torch.Tensor":
        """(rows,) the factor sᵢ of each row's gradient, from its norm, in float64."""

    @abstractmethod
    def dropout_seed(self) -> int:
        """A seed for the dropout of the training.

        It must be as secret as the draw of rows: with masks that another machine can compute, a row
        more or less changes the masks of all others, so the sum by more than one row's limit.
        """

    @abstractmethod
    def noise(self, shape: "torch.Size") -> "torch.Tensor":
        """Noise for the sum of one parameter's gradients, in float64."""
