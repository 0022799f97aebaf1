"""Records that parts on one machine pass to each other; `messages` has those of the network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hanse.journal.records import GeneratedSample, WrongRow
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Numbers

State = Mapping[str, Tensors]  # an algorithm's state on the server: groups of tensors by name
Memory = dict[str, Tensor]  # tensors that one part keeps at a client from round to round
Penalty = Callable[[Mapping[str, Tensor]], Tensor]  # trained tensors → scalar added to the loss


@dataclass(frozen=True)
class TrainResult:
    """The result of local training: optimizer steps, Σ of their learning rates, examples, tokens.

    loss: mean over all labelled items. tokens: without padding.
    spent: seconds by activity (data, forward, backward, optimizer).
    sum_clipped_lr: Σ of the learning rates, each times the share of the gradient left by clipping.
    sum_a: Σ aᵢ if the change is −Σ aᵢgᵢ over the steps' gradients gᵢ, as with SGD, where aᵢ holds
        learning rates and momentum (2007.07481); None if the change is no such sum.
    joules: energy of the training; None: not measured.
    """

    steps: int
    sum_lr: float
    examples: int
    tokens: int
    loss: float
    spent: Mapping[str, float] = field(default_factory=dict)
    sum_clipped_lr: float = 0.0
    sum_a: float | None = None
    joules: float | None = None

    @property
    def seconds(self) -> float:
        """Total time of training."""
        return sum(self.spent.values())

    def numbers(self) -> dict[str, float]:
        """The plain numbers that a client reports with its update."""
        names = ("steps", "sum_lr", "sum_clipped_lr", "examples", "tokens", "loss", "seconds")
        spent = {f"{name}_seconds": seconds for name, seconds in self.spent.items()}
        known = {"sum_a": self.sum_a, "joules": self.joules}
        optional = {name: value for name, value in known.items() if value is not None}
        return {name: float(getattr(self, name)) for name in names} | optional | spent


@dataclass(frozen=True)
class Aggregate:
    """A round's combined updates: mean tensors and numbers, total weight, names of the clients.

    clients: those whose updates are in it. excluded: those whose updates were valid, and which the
        rule left out; they do not keep this round as one that counted.
    """

    tensors: Tensors
    numbers: Numbers
    weight: float
    clients: tuple[str, ...]
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class SumTerms:
    """The terms of sums, for a mechanism whose noise adds up in them.

    survivors: the fewest updates of a sum. colluders: of these, as many may tell the server their
    noise. most: the largest absolute value of a sum of whole numbers.
    """

    survivors: int
    colluders: int
    most: int


@dataclass(frozen=True)
class Scores:
    """A task's result: named metrics, one value per item for paired comparisons, and samples.

    samples: of the split's first items, so that two evaluations show the same ones.
    truth, answers, wrong: of a classification, as in `Evaluation`; only the metrics leave a client.
    """

    metrics: dict[str, float]
    items: list[float] = field(default_factory=list)
    samples: list[GeneratedSample] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    wrong: list[WrongRow] = field(default_factory=list)
