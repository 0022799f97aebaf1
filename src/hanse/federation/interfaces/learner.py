"""The role of a learner: a model on one machine, seen through the tensors that it trains."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hanse.federation.interfaces.model_outputs import ModelOutputs
from hanse.federation.interfaces.results import Penalty, TrainResult
from hanse.federation.interfaces.text_generation import TextGeneration
from hanse.federation.interfaces.token_alignment import TokenAlignment
from hanse.federation.interfaces.trained_tensors import TrainedTensors
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work
from hanse.tensors.named import Tensors, subtract

if TYPE_CHECKING:
    from hanse.federation.interfaces.objective import Objective


class Learner(TrainedTensors, ModelOutputs, TextGeneration, TokenAlignment):
    """A model on one machine, with its trainable parameters.

    A learner keeps nothing between two requests: lasting tensors belong in a client's memory.
    models: the named models beside it on this machine.
    max_length: the most tokens of a row of a batch.
    """

    models: Mapping[str, "Learner"] = MappingProxyType({})
    max_length: int = 0

    @property
    def whole_model(self) -> WholeModel:
        """All weights of the model, for an algorithm that trains without an adapter."""
        raise TypeError(f"{type(self).__name__} keeps its base model as it is")

    @abstractmethod
    def examples(self, split: str) -> Sequence[Any]:
        """The examples of a split (train, validation, test, public); len(example) is its tokens."""

    def lengths(self, split: str) -> list[int]:
        """The number of tokens of each example of a split."""
        return [len(example) for example in self.examples(split)]

    @abstractmethod
    def batch(self, examples: Sequence[Any]) -> Any:
        """A batch of these examples for `forward`; it has `items`, `tokens` and `examples`.

        It also has `targets`, the right class at each labelled place; or `choices`, the number of
        label words, and `choice`, the right one of each example.
        """

    def batches(self, split: str, size: int) -> Iterator[tuple[list[int], Any]]:
        """A split in batches of similar length, longest first, with the examples' places in it."""
        examples = self.examples(split)
        sizes = self.lengths(split)
        order = sorted(range(len(examples)), key=lambda index: -sizes[index])
        work = Work(Activity.SCORING, split, total=len(order))
        for start in track(range(0, len(order), size), work, size):
            places = order[start : start + size]
            yield places, self.batch([examples[place] for place in places])

    def without_dropout(self) -> AbstractContextManager[None]:
        """Within this context nothing is dropped, in the middle of training too."""
        return nullcontext()

    @abstractmethod
    def fit(
        self,
        penalty: Penalty | None = None,
        objective: "Objective | None" = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainResult:
        """Train in place on a split, by the settings and the context.

        beside: those of `models` that the objective trains in the same steps, on the same batches;
            each has its own optimizer state, and its gradients are clipped by their own norm. The
            penalty, which is of the learner, finds their parameters under "<name>.<parameter>".
        steps: of the optimizer, in place of the settings' number.
        """

    def trained(
        self, start: Tensors, penalty: Penalty | None = None
    ) -> tuple[Tensors, TrainResult]:
        """Train from `start`; return the trained tensors and the result."""
        self.load(start)
        result = self.fit(penalty)
        return self.tensors(), result

    def change(self, start: Tensors, penalty: Penalty | None = None) -> tuple[Tensors, TrainResult]:
        """Train from `start`; return the change of the tensors and the result."""
        tensors, result = self.trained(start, penalty)
        return subtract(tensors, {name: start[name] for name in tensors}), result
