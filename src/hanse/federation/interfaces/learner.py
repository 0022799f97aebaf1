"""The roles of a learner, which one machine trains, and of an objective, which it minimizes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Parameter

from hanse.federation.constants import Constants
from hanse.federation.interfaces.results import Penalty, TrainResult
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import Tensors, refuse_unlike, strip_prefix, subtract
from hanse.tensors.serialization import Numbers


class Learner(ABC):
    """A model on one machine, with its trainable parameters.

    A learner keeps nothing between two requests: lasting tensors belong in a client's memory.
    """

    @abstractmethod
    def parameters(self) -> Mapping[str, Parameter]:
        """The trainable parameters by name (the live ones)."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Any]:
        """The examples of a split ("train", "validation", "test"); len(example) is its tokens."""

    def lengths(self, split: str) -> list[int]:
        """The number of tokens of each example of a split."""
        return [len(example) for example in self.examples(split)]

    @abstractmethod
    def batch(self, examples: Sequence[Any]) -> Any:
        """A batch of these examples for `forward`; it has `items`, `tokens` and `examples`."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Logits at the labelled places: (labels, classes)."""

    @abstractmethod
    def fit(
        self,
        penalty: Penalty | None = None,
        objective: "Objective | None" = None,
        split: str = "train",
    ) -> TrainResult:
        """Train in place on a split, by the settings and the context."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Save the trained tensors in a form that can be loaded without this package."""

    def scores(self, batch: Any) -> Tensor:
        """Scores of each example's label words: (examples, label words)."""
        return self.forward(batch)

    def generate(self, examples: Sequence[Any], max_new_tokens: int) -> list[str]:
        """The model's greedy continuation of each example's prompt."""
        raise TypeError(f"{type(self).__name__} generates no text")

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        raise TypeError(f"{type(self).__name__} reads no text")

    def batches(self, split: str, size: int) -> Iterator[tuple[list[int], Any]]:
        """A split in batches of similar length, longest first, with the examples' places in it."""
        examples = self.examples(split)
        sizes = self.lengths(split)
        order = sorted(range(len(examples)), key=lambda index: -sizes[index])
        starts = range(0, len(order), size)
        work = Work(Activity.SCORING, split, total=len(order))
        for start in track(starts, work, size):
            places = order[start : start + size]
            yield places, self.batch([examples[place] for place in places])

    def configure(self, numbers: Numbers) -> None:  # noqa: B027 (most learners ignore them)
        """Configure the adapter by an instruction's numbers (a rank); by default do nothing."""

    @property
    def scaling(self) -> float:
        """The factor of a LoRA adapter's products, α/r."""
        return 1.0

    def initial(self) -> Tensors:
        """The trainable tensors before any training; equal settings give equal tensors."""
        raise TypeError(f"{type(self).__name__} has no initial tensors")

    def constants(self) -> Constants:
        """The adapter's constants, the same on all machines; by default none."""
        return Constants()

    def has_constants(self, digest: str) -> bool:
        """True if the learner has the constants with this hash."""
        return not digest

    def put_constants(self, constants: Constants) -> None:
        """Use these constants; raises UserError unless names and shapes are the same."""
        if constants.digest:
            raise TypeError(f"{type(self).__name__} has no constants")

    def freeze(self, tensors: Tensors) -> None:
        """Set some of the parameters and freeze them: they are neither trained nor sent.

        This learner's `parameters`, `tensors` and `load` no longer include them.
        """
        raise TypeError(f"{type(self).__name__} cannot freeze parameters")

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the trainable tensors on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters().items()}

    def on_device(self, tensors: Tensors) -> dict[str, Tensor]:
        """These tensors on the parameters' device, for a penalty that needs them in every step."""
        device = next(iter(self.parameters().values())).device
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def set_residual(self, residual: Tensors) -> None:
        """Add the low-rank update up·down to each frozen layer; it replaces the previous one."""
        if residual:
            raise TypeError(f"{type(self).__name__} cannot change its frozen base")

    def load(self, tensors: Tensors) -> None:
        """Set the parameters in place; raises UserError unless names and shapes are the same.

        Tensors with the prefix RESIDUAL go to `set_residual`; without any the residual is removed.
        """
        live = self.parameters()
        refuse_unlike(live, {n: t for n, t in tensors.items() if not n.startswith(RESIDUAL)})
        for name, parameter in live.items():
            parameter.data.copy_(tensors[name])
        self.set_residual(strip_prefix(tensors, RESIDUAL))

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


class Objective(ABC):
    """The loss that a learner minimizes."""

    # The kind of its examples: "tokens", "label_words" to choose from, or "tags" of words.
    example_kind: ClassVar[str] = "tokens"
    batchable: ClassVar[bool] = True  # calls `forward` or `scores` once, so clients can be batched

    @abstractmethod
    def loss(self, learner: Learner, batch: Any) -> Tensor:
        """The mean loss over the batch's items, a scalar."""
