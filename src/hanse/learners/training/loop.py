"""The local training loop of one client: any learner, any objective."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

import hanse
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.training import optimizer_state
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.settings import TrainingSettings
from hanse.learners.training.timer import Stopwatch
from hanse.learners.training.training_progress import TrainingProgress, with_measurements
from hanse.observability.progress import track
from hanse.observability.steps import Training
from hanse.tensors.named import digest


def fit(job: TrainingJob, checkpoint: TrainingCheckpoint | None = None) -> TrainResult:
    """Train the job's learner in place.

    checkpoint: writes the progress to a file from time to time; training resumes from that file.
    """
    settings, parameters = job.settings, dict(job.learner.parameters())
    stopwatch = Stopwatch(next(iter(parameters.values())).device)
    steps = job.sample_batches()
    optimizer = _optimizer(settings, list(parameters.values()))
    optimizer.zero_grad()  # training that ran out of memory has left its gradients
    if job.keeps_optimizer_state:
        optimizer_state.restore(optimizer, parameters, job.optimizer_state)
    progress, first = TrainingProgress(settings.momentum), 0
    if checkpoint is not None:
        first = _resume(checkpoint, job, parameters, optimizer, progress)
    remaining = range(first, len(steps))
    work = Training(tuple(filter(None, [job.context.client])), total=len(remaining))
    for step in track(remaining, work, measure=lambda now: with_measurements(now, [progress])):
        rate, batches = job.learning_rate(step, len(steps)), job.batches(step, steps[step])
        stopwatch.lap("data")
        losses = _backward(job, batches, stopwatch)
        if job.penalty is not None:
            job.penalty(parameters).backward()
        share = optimizer_state.clip(parameters.values(), settings.max_grad_norm)
        optimizer_state.step(optimizer, rate)
        progress.add(batches, losses, rate, share)
        stopwatch.lap("optimizer")
        if checkpoint is not None:
            checkpoint.save_if_due(step + 1, parameters, optimizer, progress.numbers, progress.sums)
    if job.keeps_optimizer_state:
        optimizer_state.save(optimizer, parameters, job.optimizer_state)
    return progress.result(len(steps), stopwatch.seconds(), settings.sums_gradients)


def _resume(
    checkpoint: TrainingCheckpoint,
    job: TrainingJob,
    parameters: Mapping[str, Parameter],
    optimizer: Optimizer,
    progress: TrainingProgress,
) -> int:
    """Continue a training that was killed; return the number of steps that are done."""
    checkpoint.begin(job.context, _start(job, parameters))
    restored = checkpoint.restore(parameters, optimizer)
    if restored is None:
        return 0
    done, numbers, sums = restored
    progress.restore(numbers, sums)
    return done


def _start(job: TrainingJob, parameters: Mapping[str, Parameter]) -> str:
    """A text that tells a training from others of the same round: its start and its settings."""
    words = (hanse.__version__, job.settings, job.split, type(job.objective).__name__)
    return " ".join([digest(parameters), digest(job.optimizer_state), *map(str, words)])


def _backward(job: TrainingJob, batches: Sequence[Any], stopwatch: Stopwatch) -> torch.Tensor:
    """Add the gradients of the mean over all items of a step; return the sum of their losses."""
    items = sum(batch.items for batch in batches)
    total: torch.Tensor | None = None
    for batch in batches:
        loss = job.objective.loss(job.learner, batch)
        stopwatch.lap("forward")
        (loss * (batch.items / items)).backward()
        stopwatch.lap("backward")
        part = loss.detach() * batch.items
        total = part if total is None else total + part
    assert total is not None  # a step has at least one micro-batch
    return total


def _optimizer(settings: TrainingSettings, parameters: list[Parameter]) -> Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = parameters[0].device.type == "cpu"  # one pass over each tensor and its state
    if settings.optim == "sgd":
        momentum = settings.momentum
        return SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=fused)
    return AdamW(parameters, rate, weight_decay=decay, fused=fused)
