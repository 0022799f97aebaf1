"""What one machine trains, and what for: the roles of learners and objectives."""

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
    """A model on one machine, seen through what it trains.

    Between two requests a learner keeps nothing: what must last goes into a client's memory.
    """

    @abstractmethod
    def parameters(self) -> Mapping[str, Parameter]:
        """What is trained, live and by name."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Any]:
        """The examples of a split ("train", "validation", "test"); len(example) is its tokens."""

    def lengths(self, split: str) -> list[int]:
        """The number of tokens of each example of a split."""
        return [len(example) for example in self.examples(split)]

    @abstractmethod
    def batch(self, examples: Sequence[Any]) -> Any:
        """What `forward` takes, for these examples; has `items`, `tokens` and `examples`."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Outputs where there is a label: (labels, classes) logits."""

    @abstractmethod
    def fit(
        self,
        penalty: Penalty | None = None,
        objective: "Objective | None" = None,
        split: str = "train",
    ) -> TrainResult:
        """Train in place on a split, as the settings and the context say."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is trained, so that others can load it without this package."""

    def scores(self, batch: Any) -> Tensor:
        """(examples, choices) scores of a batch whose examples have choices."""
        return self.forward(batch)

    def generate(self, examples: Sequence[Any], max_new_tokens: int) -> list[str]:
        """What the model says after each example's prompt, word by most likely word."""
        raise TypeError(f"{type(self).__name__} generates no text")

    def text(self, ids: Sequence[int]) -> str:
        """What some tokens say."""
        raise TypeError(f"{type(self).__name__} reads no text")

    def batches(self, split: str, size: int) -> Iterator[tuple[list[int], Any]]:
        """A split in batches of like length, longest first, with the examples' places in it."""
        examples = self.examples(split)
        sizes = self.lengths(split)
        order = sorted(range(len(examples)), key=lambda index: -sizes[index])
        starts = range(0, len(order), size)
        work = Work(Activity.SCORING, split, total=len(order))
        for start in track(starts, work, size):
            places = order[start : start + size]
            yield places, self.batch([examples[place] for place in places])

    def configure(self, numbers: Numbers) -> None:  # noqa: B027 (an instruction may ask for nothing)
        """Reshape what is trained, as an instruction's numbers ask (a rank); by default nothing."""

    @property
    def scaling(self) -> float:
        """What the products of a LoRA adapter's factors are multiplied by, α/r."""
        return 1.0

    def initial(self) -> Tensors:
        """What is trained, as it is before any training: the same wherever the settings are."""
        raise TypeError(f"{type(self).__name__} does not know how it began")

    def constants(self) -> Constants:
        """What nobody trains and all machines must have alike; by default nothing."""
        return Constants()

    def has_constants(self, digest: str) -> bool:
        """Whether the constants with this hash are in place."""
        return not digest

    def put_constants(self, constants: Constants) -> None:
        """Use these constants; raises UserError unless names and shapes are the same."""
        if constants.digest:
            raise TypeError(f"{type(self).__name__} has no constants")

    def freeze(self, tensors: Tensors) -> None:
        """Set some of what is trained, and leave it as it is: it is no longer trained, nor sent.

        From then on this learner's `parameters`, `tensors` and `load` are about the rest.
        """
        raise TypeError(f"{type(self).__name__} cannot train a part only")

    def tensors(self) -> dict[str, Tensor]:
        """A copy of what is trained, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters().items()}

    def on_device(self, tensors: Tensors) -> dict[str, Tensor]:
        """Such tensors where what is trained lies, for a penalty that needs them in every step."""
        device = next(iter(self.parameters().values())).device
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def set_residual(self, residual: Tensors) -> None:
        """Change the frozen base by up·down, layer by layer; the last change is gone."""
        if residual:
            raise TypeError(f"{type(self).__name__} cannot change its frozen base")

    def load(self, tensors: Tensors) -> None:
        """Set what is trained, in place; raises UserError unless names and shapes are the same.

        What stands behind RESIDUAL goes to `set_residual`; without it, the base is as it was.
        """
        live = self.parameters()
        refuse_unlike(live, {n: t for n, t in tensors.items() if not n.startswith(RESIDUAL)})
        for name, parameter in live.items():
            parameter.data.copy_(tensors[name])
        self.set_residual(strip_prefix(tensors, RESIDUAL))

    def trained(
        self, start: Tensors, penalty: Penalty | None = None
    ) -> tuple[Tensors, TrainResult]:
        """Train from `start`; what is trained as it ended, and what was done."""
        self.load(start)
        fit = self.fit(penalty)
        return self.tensors(), fit

    def change(self, start: Tensors, penalty: Penalty | None = None) -> tuple[Tensors, TrainResult]:
        """Train from `start`; how what is trained moved, and what was done."""
        ended, fit = self.trained(start, penalty)
        return subtract(ended, {name: start[name] for name in ended}), fit


class Objective(ABC):
    """What a learner minimizes."""

    # How rows become examples: "tokens" to learn, "label_words" to choose from, or "tags" of words.
    example_kind: ClassVar[str] = "tokens"
    batchable: ClassVar[bool] = True  # asks only for `forward` or `scores`, once: cohorts can do it

    @abstractmethod
    def loss(self, learner: Learner, batch: Any) -> Tensor:
        """A scalar: the mean over the batch's items."""
