"""The local training loop: any learner, any objective, one round's share of the schedule."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch.optim import SGD, AdamW, Optimizer

import hanse
from hanse.learner import Learner, Objective
from hanse.learners import optimizers
from hanse.learners.seen import Seen, told
from hanse.learners.stopwatch import Stopwatch
from hanse.learners.training_checkpoint import TrainingCheckpoint
from hanse.packed import lengths
from hanse.progress import track
from hanse.randomness import Moment
from hanse.tensors import digest
from hanse.values import Fit, Memory, Penalty

LARGEST = 1_000_000  # examples of one optimizer step
WINDOW = 32  # batches within which examples are sorted by length, to spare padding


@dataclass(frozen=True)
class Training:
    """How a client trains in each round; the names are those of Hugging Face's trainer.

    A round is `max_steps` optimizer steps, or `num_train_epochs` passes (a fraction is allowed)
    over the client's examples; the learning rate's schedule runs over all rounds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    learning_rate: PositiveFloat = 1e-3
    per_device_train_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    max_steps: PositiveInt | None = None  # optimizer steps a round
    num_train_epochs: PositiveFloat | None = None  # passes a round; 1 if neither is given
    optim: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # sgd only
    max_grad_norm: NonNegativeFloat = 1.0  # 0 for no clipping
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all steps of all rounds
    optimizer_state: Literal["reset", "keep"] = "reset"  # between rounds

    def __post_init__(self) -> None:
        if self.batch > LARGEST:
            raise ValueError(
                f"train asks for {self.batch:,} examples in a step; lower "
                "per_device_train_batch_size or gradient_accumulation_steps, whose product may be "
                f"{LARGEST:,}."
            )
        if self.momentum and self.optim != "sgd":
            raise ValueError(
                f"train.momentum is {self.momentum}, but {self.optim} has none to set; set "
                "train.momentum=0, or train.optim=sgd."
            )

    def steps(self, examples: int) -> int:
        """Optimizer steps of one round for a client with so many examples."""
        return math.ceil(self.seen(examples) / self.batch)

    def seen(self, examples: int) -> int:
        """Examples that pass in one round at a client with so many."""
        if self.max_steps is not None:
            return self.max_steps * self.batch
        return max(1, round(examples * (self.num_train_epochs or 1.0)))

    @property
    def batch(self) -> int:
        """Examples of one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def optimizer(self) -> str:
        """What an algorithm may ask for: "adamw", "momentum" (SGD with it) or "sgd" (without)."""
        return "momentum" if self.momentum else self.optim

    @property
    def sums_gradients(self) -> bool:
        """Whether a round's change is −Σ aᵢgᵢ over its own gradients, with aᵢ that `Seen` knows."""
        kept = self.momentum > 0 and self.optimizer_state == "keep"  # older ones are in it, too
        return self.optim == "sgd" and not kept

    def rate(self, progress: float) -> float:
        """The learning rate when the share `progress` of all steps of all rounds is done."""
        if progress < self.warmup_ratio:
            return self.learning_rate * progress / self.warmup_ratio
        rest = (progress - self.warmup_ratio) / (1 - self.warmup_ratio)
        if self.lr_scheduler_type == "linear":
            return self.learning_rate * (1 - rest)
        if self.lr_scheduler_type == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * rest)) / 2
        return self.learning_rate


def draw(sizes: Sequence[int], settings: Training, moment: Moment) -> list[list[list[int]]]:
    """Which examples make up each micro-batch of each step: (steps, micro-batches, indices).

    Every example is drawn once before any is drawn again. Within a window of WINDOW batches they
    are sorted by length and cut into batches; a round that needs only some of these takes them at
    equal distances, so that it reads short and long ones as they come. Batches are shuffled, but
    in like order for all clients of a round: in a cohort, long ones then stand beside long ones.

    sizes: tokens of each example.
    """
    size, wanted = settings.per_device_train_batch_size, settings.seen(len(sizes))
    steps, micro = math.ceil(wanted / size), settings.gradient_accumulation_steps
    own = moment.generator("examples")
    keys = torch.rand(steps, generator=replace(moment, client="").generator("batches"))
    batches: list[list[int]] = []
    for window in _windows(len(sizes), WINDOW * size, size, own):
        if len(window) == size:
            window = window[: wanted - size * len(batches)]
        window.sort(key=lambda index: sizes[index])
        cut = [window[at : at + size] for at in range(0, len(window), size)]
        missing = steps - len(batches)
        if missing < len(cut):
            first = torch.rand((), generator=own).item()
            cut = [cut[int((place + first) * len(cut) / missing)] for place in range(missing)]
        ranks = keys[len(batches) : len(batches) + len(cut)].argsort().argsort()
        batches += [cut[rank] for rank in ranks.tolist()]
        if len(batches) == steps:
            break
    batches[-1] = batches[-1][: wanted - size * (steps - 1)]
    return [batches[at : at + micro] for at in range(0, steps, micro)]


def _windows(
    examples: int, longest: int, size: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Endless random passes over all examples, in pieces of whole batches.

    What is left of a pass, less than a batch, is filled up from the next one.
    """
    rest: list[int] = []
    while True:
        order = torch.randperm(examples, generator=generator).tolist()
        if rest:
            rest, order = rest + order[: size - len(rest)], order[size - len(rest) :]
            if len(rest) < size:
                continue
            yield rest
        whole = len(order) // size * size
        for start in range(0, whole, longest):
            yield order[start : min(start + longest, whole)]
        rest = order[whole:]


def fit(
    learner: Learner,
    split: str,
    settings: Training,
    objective: Objective,
    moment: Moment,
    rounds: int,
    penalty: Penalty | None,
    kept: Memory,
    checkpoint: TrainingCheckpoint | None = None,
) -> Fit:
    """Train `learner` in place on a split for the round at `moment`, one of `rounds`.

    penalty: a scalar of the trained tensors, added to the loss of every step.
    kept: the optimizer's state from the last round, if the settings keep it; it is updated.
    checkpoint: where to note on the way how far it is, and to go on from.
    """
    parameters = dict(learner.parameters())
    watch = Stopwatch(next(iter(parameters.values())).device)
    examples = learner.examples(split)
    steps = draw(lengths(examples), settings, moment)
    optimizer = _optimizer(settings, list(parameters.values()))
    optimizer.zero_grad()  # training that ran out of memory has left its gradients
    if settings.optimizer_state == "keep":
        optimizers.restore(optimizer, parameters, kept)
    seen, done = Seen(settings.momentum), 0
    if checkpoint is not None:
        checkpoint.begin(moment, _start(parameters, kept, settings, split, objective))
        if (found := checkpoint.restore(parameters, optimizer)) is not None:
            done = found[0]
            seen.go_on(*found[1:])
    left = list(enumerate(steps))[done:]
    what = f"training {moment.client or 'on the server'}"
    for number, step in track(left, what, len(left), numbers=lambda: told([seen])):
        rate = settings.rate(share_done(moment, number, len(steps), rounds))
        batches = [learner.batch([examples[index] for index in indices]) for indices in step]
        watch.lap("data")
        losses = _backward(learner, objective, batches, watch)
        if penalty is not None:
            penalty(parameters).backward()
        share = optimizers.clip(parameters.values(), settings.max_grad_norm)
        optimizers.move(optimizer, rate)
        seen.add(batches, losses, rate, share)
        watch.lap("optimizer")
        if checkpoint is not None:
            checkpoint.keep(number + 1, parameters, optimizer, seen.numbers, seen.sums)
    if settings.optimizer_state == "keep":
        optimizers.keep(optimizer, parameters, kept)
    return seen.fit(len(steps), watch.seconds(), settings.sums_gradients)


def share_done(moment: Moment, step: int, steps: int, rounds: int) -> float:
    """The share of all steps of all rounds that is done before one step of a round."""
    return (max(1, moment.round) - 1 + step / steps) / rounds


def _backward(
    learner: Learner, objective: Objective, batches: Sequence[Any], watch: Stopwatch
) -> torch.Tensor:
    """Gradients of the mean over all items of a step's micro-batches; the sum of their losses."""
    items = sum(batch.items for batch in batches)
    total: torch.Tensor | None = None
    for batch in batches:
        loss = objective.loss(learner, batch)
        watch.lap("forward")
        (loss * (batch.items / items)).backward()
        watch.lap("backward")
        part = loss.detach() * batch.items
        total = part if total is None else total + part
    assert total is not None  # a step has at least one micro-batch
    return total


def _optimizer(settings: Training, parameters: list[torch.nn.Parameter]) -> Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optim == "sgd":
        return SGD(parameters, rate, momentum=settings.momentum, weight_decay=decay)
    return AdamW(parameters, rate, weight_decay=decay)


def _start(
    parameters: Mapping[str, torch.nn.Parameter],
    kept: Memory,
    settings: Training,
    split: str,
    objective: Objective,
) -> str:
    """A hash of what a training begins with; the round's request decides the rest."""
    words = (hanse.__version__, settings, split, type(objective).__name__)
    return " ".join([digest(parameters), digest(kept), *map(str, words)])
