"""The local training loop: any learner, any objective, one round's share of the schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

import hanse
from hanse.data.packed import lengths
from hanse.federation.interfaces.learner import Learner, Objective
from hanse.federation.interfaces.results import Memory, Penalty, TrainResult
from hanse.learners.training import optimizer_state
from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.settings import TrainingSettings
from hanse.learners.training.timer import Stopwatch
from hanse.learners.training.training_progress import TrainingProgress, with_measurements
from hanse.observability.progress import track
from hanse.observability.steps import Training
from hanse.randomness import RoundContext
from hanse.tensors.named import digest


def fit(
    learner: Learner,
    split: str,
    settings: TrainingSettings,
    objective: Objective,
    context: RoundContext,
    rounds: int,
    penalty: Penalty | None,
    kept: Memory,
    checkpoint: TrainingCheckpoint | None = None,
) -> TrainResult:
    """Train `learner` in place on a split for the round at `context`, one of `rounds`.

    penalty: a scalar of the trained tensors, added to the loss of every step.
    kept: the optimizer's state from the last round, if the settings keep it; it is updated.
    checkpoint: where to note on the way how far it is, and to go on from.
    """
    parameters = dict(learner.parameters())
    watch = Stopwatch(next(iter(parameters.values())).device)
    examples = learner.examples(split)
    steps = sample_batches(lengths(examples), settings, context)
    optimizer = _optimizer(settings, list(parameters.values()))
    optimizer.zero_grad()  # training that ran out of memory has left its gradients
    if settings.optimizer_state == "keep":
        optimizer_state.restore(optimizer, parameters, kept)
    seen, done = TrainingProgress(settings.momentum), 0
    if checkpoint is not None:
        checkpoint.begin(context, _start(parameters, kept, settings, split, objective))
        if (found := checkpoint.restore(parameters, optimizer)) is not None:
            done = found[0]
            seen.go_on(*found[1:])
    left = list(enumerate(steps))[done:]
    work = Training((context.client,) if context.client else (), total=len(left))
    for number, step in track(left, work, measure=lambda step: with_measurements(step, [seen])):
        rate = settings.rate(share_done(context, number, len(steps), rounds))
        batches = [learner.batch([examples[index] for index in indices]) for indices in step]
        watch.lap("data")
        losses = _backward(learner, objective, batches, watch)
        if penalty is not None:
            penalty(parameters).backward()
        share = optimizer_state.clip(parameters.values(), settings.max_grad_norm)
        optimizer_state.move(optimizer, rate)
        seen.add(batches, losses, rate, share)
        watch.lap("optimizer")
        if checkpoint is not None:
            checkpoint.keep(number + 1, parameters, optimizer, seen.numbers, seen.sums)
    if settings.optimizer_state == "keep":
        optimizer_state.keep(optimizer, parameters, kept)
    return seen.fit(len(steps), watch.seconds(), settings.sums_gradients)


def share_done(context: RoundContext, step: int, steps: int, rounds: int) -> float:
    """The share of all steps of all rounds that is done before one step of a round."""
    return (max(1, context.round) - 1 + step / steps) / rounds


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


def _optimizer(settings: TrainingSettings, parameters: list[torch.nn.Parameter]) -> Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optim == "sgd":
        return SGD(parameters, rate, momentum=settings.momentum, weight_decay=decay)
    return AdamW(parameters, rate, weight_decay=decay)


def _start(
    parameters: Mapping[str, torch.nn.Parameter],
    kept: Memory,
    settings: TrainingSettings,
    split: str,
    objective: Objective,
) -> str:
    """A hash of what a training begins with; the round's request decides the rest."""
    words = (hanse.__version__, settings, split, type(objective).__name__)
    return " ".join([digest(parameters), digest(kept), *map(str, words)])
