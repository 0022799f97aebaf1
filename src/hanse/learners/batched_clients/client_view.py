"""A learner as an objective sees it within a cohort: the batch's logits are there already."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Parameter

from hanse.federation.interfaces.learner import Learner, Objective
from hanse.federation.interfaces.results import Penalty, TrainResult
from hanse.learners.training.batches import Batch, choice_scores


class ClientView(Learner):
    """One client's place in a cohort, for one batch.

    learner: the client's own, for all that has nothing to do with the model's outputs.
    """

    def __init__(self, learner: Learner, batch: Batch, logits: Tensor) -> None:
        self._learner, self._batch, self._logits = learner, batch, logits

    def forward(self, batch: Batch) -> Tensor:
        if batch is not self._batch:
            self._refuse("the outputs for another batch")
        return self._logits

    def scores(self, batch: Batch) -> Tensor:
        return choice_scores(self.forward(batch), batch)

    def examples(self, split: str) -> Sequence[Any]:
        return self._learner.examples(split)

    def batch(self, examples: Sequence[Any]) -> Any:
        return self._learner.batch(examples)

    def parameters(self) -> Mapping[str, Parameter]:
        self._refuse("the parameters")

    def fit(
        self, penalty: Penalty | None = None, objective: Objective | None = None, split: str = ""
    ) -> TrainResult:
        self._refuse("training")

    def save(self, folder: Path) -> None:
        self._refuse("a copy on disk")

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"this objective asks for {what}, which a learner has only by itself; give the "
            "objective `batchable = False`."
        )
