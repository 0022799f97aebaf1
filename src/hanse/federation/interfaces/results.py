"""Results that parts on one machine pass to each other; `messages` has what crosses a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hanse.journal.records import GeneratedSample
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Numbers

State = Mapping[str, Tensors]  # what an algorithm's server half remembers: groups by name
Memory = dict[str, Tensor]  # what one part keeps at a client from round to round
Penalty = Callable[[Mapping[str, Tensor]], Tensor]  # trained tensors → scalar added to the loss


@dataclass(frozen=True)
class TrainResult:
    """What local training did: optimizer steps, Σ of their rates, and what was seen on the way.

    loss: mean over all labelled items; tokens: without padding.
    spent: seconds by what was done (data, forward, backward, optimizer).
    sum_clipped_lr: Σ of the rates, each times what clipping has left of its step's gradient.
    sum_a: Σ aᵢ where the change is −Σ aᵢgᵢ over the gradients gᵢ that the steps have taken, as with
        SGD, whose rates and momentum are in aᵢ (2007.07481); None where it is no such sum.
    """

    steps: int
    sum_lr: float
    examples: int
    tokens: int
    loss: float
    spent: Mapping[str, float] = field(default_factory=dict)
    sum_clipped_lr: float = 0.0
    sum_a: float | None = None

    @property
    def seconds(self) -> float:
        """All of its time."""
        return sum(self.spent.values())

    def numbers(self) -> dict[str, float]:
        """The plain numbers that a client reports with its update."""
        names = ("steps", "sum_lr", "sum_clipped_lr", "examples", "tokens", "loss", "seconds")
        spent = {f"{name}_seconds": seconds for name, seconds in self.spent.items()}
        known = {} if self.sum_a is None else {"sum_a": self.sum_a}
        return {name: float(getattr(self, name)) for name in names} | known | spent


@dataclass(frozen=True)
class Aggregate:
    """What the aggregator made of a round's updates: the means, their total weight, from whom."""

    tensors: Tensors
    numbers: Numbers
    weight: float
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """What a task found: named metrics, one value per item for paired comparisons, and samples.

    samples: of the split's first items, so that those of two evaluations belong together.
    """

    metrics: dict[str, float]
    items: list[float] = field(default_factory=list)
    samples: list[GeneratedSample] = field(default_factory=list)
