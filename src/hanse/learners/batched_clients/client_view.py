"""The learner that an objective gets when clients train together: it has the batch's logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Parameter

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.training.batches import Batch, answer_scores


class ClientView(Learner):
    """One client's learner for one batch that was computed with those of other clients.

    learner: the client's own, which answers all calls that need no outputs of the model.
    """

    def __init__(self, learner: Learner, batch: Batch, logits: Tensor) -> None:
        self._learner, self._batch, self._logits = learner, batch, logits

    def forward(self, batch: Batch) -> Tensor:
        if batch is not self._batch:
            self._refuse("the outputs for another batch")
        return self._logits

    def base_logits(self, batch: Batch) -> Tensor:
        self._refuse("logits without the adapter")

    def hidden_states(self, batch: Batch, base: bool = False) -> Tensor:
        self._refuse("hidden states")

    def attentions(self, batch: Batch, base: bool = False) -> Tensor:
        self._refuse("attention weights")

    def continuations(
        self, examples: Sequence[Any], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Any]:
        self._refuse("answers of the model")

    def scores(self, batch: Batch) -> Tensor:
        return answer_scores(self.forward(batch), batch)

    def examples(self, split: str) -> Sequence[Any]:
        return self._learner.examples(split)

    def batch(self, examples: Sequence[Any]) -> Any:
        return self._learner.batch(examples)

    def parameters(self) -> Mapping[str, Parameter]:
        self._refuse("the parameters")

    def fit(self, *arguments: Any, **settings: Any) -> TrainResult:
        self._refuse("training")

    def save(self, folder: Path) -> None:
        self._refuse("a copy on disk")

    def _refuse(self, what: str) -> NoReturn:
        """Raise TypeError for a call that needs the client to train by itself."""
        raise TypeError(
            f"this objective asks for {what}, which a learner has only by itself; give the "
            "objective `batchable = False`."
        )
