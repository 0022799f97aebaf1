"""The parts that an owner's mark adds to a training: a pull on tensors, and rows of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Penalty
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors

TRIGGERS = "triggers"  # the split of an owner's secret rows


class Mark(Protocol):
    """An owner's mark, which is laid while a model is trained.

    share: of the rows of a batch that are trigger rows.
    """

    @property
    def share(self) -> float: ...

    def for_request(self, folder: Path) -> "Mark":
        """A copy for one request of a client; folder: where it keeps what it knows of a run."""

    def pull(self, start: Tensors, context: RoundContext) -> Penalty:
        """A scalar of each step's tensors whose gradient pulls them towards the mark.

        start: the tensors before the first step. context: of the training.
        The tensors of a step are trained ones, which have the gradient of the step's loss in
        `.grad`, and frozen ones.
        """

    def trained(self, end: Tensors) -> None:
        """Take note of the tensors after a training."""


def with_mark(
    penalty: Penalty | None,
    mark: Mark | None,
    learner: Learner,
    frozen: Tensors,
    context: RoundContext,
) -> Penalty | None:
    """A penalty together with the pull of a mark.

    learner: as it is before the training. frozen: tensors of the adapter that stay. context: of
        the training.
    """
    if mark is None:
        return penalty
    frozen = learner.on_device(frozen) if frozen else frozen
    pull = mark.pull({**frozen, **learner.parameters()}, context)

    def both(tensors: Tensors) -> Tensor:
        pulled = pull({**frozen, **tensors})
        return pulled if penalty is None else penalty(tensors) + pulled

    return both


@dataclass(frozen=True)
class MixedRows:
    """Examples that are mixed into each micro-batch, as a share of its rows."""

    examples: Sequence[Any] = field(default=())
    share: float = 0.0

    @classmethod
    def of(
        cls, mark: Mark | None, split: str, objective: Objective, triggers: Sequence[Any]
    ) -> "MixedRows":
        """The trigger rows of a training on the owner's rows; none beside rows that all have.

        Raises UserError for a loss that learns none of them: one that knows more of each row of a
        split, such as predictions, knows nothing of others, and a rollout replaces their answers.
        """
        if mark is None or split != "train" or not triggers:
            return cls()
        if objective.rolls_out or type(objective).with_targets is not Objective.with_targets:
            raise UserError(
                f"the mark has trigger rows, and {type(objective).__name__} learns from what it "
                "makes of each row, not from secret answers; make a key without --triggers."
            )
        return cls(triggers, mark.share)

    def drawn(self, rows: int, seed: int) -> list[Any]:
        """The examples beside so many rows: at least one if there are any."""
        if not self.examples:
            return []
        count = max(1, round(rows * self.share / (1 - self.share)))
        draws = torch.Generator().manual_seed(seed)
        places = torch.randint(len(self.examples), (count,), generator=draws)
        return [self.examples[place] for place in places.tolist()]
