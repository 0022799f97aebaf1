"""The role of a task: it scores a learner on a split."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores


class Task(ABC):
    """A score of a learner on a split."""

    example_kind: ClassVar[str] = "tokens"  # how rows become examples, as for objectives
    reports: ClassVar[tuple[str, ...]] = ()  # names of its metrics; no others leave a silo
    limit: int | None = None  # the largest number of examples, a split's first; None: all

    @property
    def test_only(self) -> bool:
        """True if it takes long, and therefore scores the server's test rows only."""
        return False

    def require(self) -> None:  # noqa: B027 (most need nothing)
        """Raise UserError if a required package is not installed."""

    @abstractmethod
    def evaluate(self, learner: Learner, split: str) -> Scores:
        """Metrics, and one value per item in the order of the split."""
