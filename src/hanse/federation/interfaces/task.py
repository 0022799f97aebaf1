"""The role of a task: scores a learner on a split."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores


class Task(ABC):
    """How a learner is judged on a split."""

    example_kind: ClassVar[str] = "tokens"  # how rows become examples, as for objectives
    limit: int | None = None  # most examples of one evaluation, a split's first; None for all

    @property
    def test_only(self) -> bool:
        """Whether it is measured on the server's test rows only, since it takes long."""
        return False

    def require(self) -> None:  # noqa: B027 (most need nothing)
        """Raise UserError if a package that it needs is not installed."""

    @abstractmethod
    def evaluate(self, learner: Learner, split: str) -> Scores:
        """Metrics, and one value per item in the order of the split."""
