"""The role of a task: scores a learner on a split."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores


class Task(ABC):
    """How a learner is judged on a split."""

    needs: ClassVar[str] = "tokens"  # how rows become examples, as for objectives
    # Measured on the server's test rows only, not on validation rows nor at the clients.
    costly: bool = False
    limit: int | None = None  # most examples of one evaluation, a split's first; None for all

    def require(self) -> None:  # noqa: B027 (most need nothing)
        """Raise UserError if a package that it needs is not installed."""

    @abstractmethod
    def evaluate(self, learner: Learner, split: str) -> Scores:
        """Metrics, and one value per item in the order of the split."""
