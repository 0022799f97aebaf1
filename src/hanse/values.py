"""What passes between the parts on one machine; messages.py has what passes between machines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag

from torch import Tensor

from hanse.messages import Numbers
from hanse.tensors import Tensors

State = Mapping[str, Tensors]  # what an algorithm's server half remembers: groups by name
Memory = dict[str, Tensor]  # what one part keeps at a client from round to round
Penalty = Callable[[Mapping[str, Tensor]], Tensor]  # trained tensors → scalar added to the loss

IGNORED = -100  # the label of a token that is read but not learned


class Lost(IntFlag):
    """The parts of a row that an example lacks since it would be longer than max_length."""

    NOTHING = 0
    TURNS = 1  # earlier turns of a conversation
    SYSTEM = 2  # the end of the system turn
    PROMPT = 4  # the beginning of what is asked
    TEXT = 8  # the end of a text
    ANSWER = 16  # the end of an answer


@dataclass(frozen=True)
class Example:
    """One tokenized example; len(example) is the number of its tokens.

    ids: the tokens that are read.
    labels: for each token the id to learn there (the token itself), or IGNORED; as long as `ids`.
    choices: for an example that is answered by one of several label words: their tokens, each of
        which would follow `ids`; the labels are then all IGNORED.
    choice: the index of the right one among `choices`.
    prompt: how many of `ids` stand before the last answer; 0 if there is none.
    answer: that answer as it was written, uncut; "" if there is none.
    tags: for an example whose words are tagged, the class of each token that begins a word, IGNORED
        elsewhere; as long as `ids`, and the labels are then all IGNORED.
    classes: their names, the same for all examples.
    lost: what had to be left out.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...] = ()
    choice: int = IGNORED
    prompt: int = 0
    answer: str = ""
    tags: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    lost: Lost = Lost.NOTHING

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Fit:
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
class Combined:
    """What the aggregator made of a round's updates: the means, their total weight, from whom."""

    tensors: Tensors
    numbers: Numbers
    weight: float
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A prompt, the answer that the data have, and what the model said."""

    prompt: str
    answer: str
    said: str


@dataclass(frozen=True)
class Scores:
    """What a task found: named metrics, one value per item for paired comparisons, and samples.

    samples: of the split's first items, so that those of two evaluations belong together.
    """

    metrics: dict[str, float]
    items: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
