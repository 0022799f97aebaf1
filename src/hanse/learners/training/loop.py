"""The local training loop of one client: any learner, any objective."""

from collections.abc import Mapping, Sequence

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

import hanse
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.training import optimizer_state
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.gradients import Gradients, MeanGradients
from hanse.learners.training.job import TrainedGroup, TrainingJob
from hanse.learners.training.settings import TrainingSettings
from hanse.learners.training.timer import Stopwatch
from hanse.learners.training.training_progress import TrainingProgress, with_measurements
from hanse.observability.progress import track
from hanse.observability.steps import Training
from hanse.tensors.named import digest


def fit(
    job: TrainingJob,
    checkpoint: TrainingCheckpoint | None = None,
    gradients: Gradients | None = None,
) -> TrainResult:
    """Train the job's learner in place, and the models beside it.

    checkpoint: writes the progress to a file from time to time; training resumes from that file.
    gradients: of its steps; None: those of the mean loss.
    """
    settings, groups = job.settings, job.groups()
    parameters = {own.prefix + name: p for own in groups for name, p in own.parameters.items()}
    stopwatch = Stopwatch(next(iter(parameters.values())).device)
    gradients = gradients or MeanGradients(job)
    optimizer = _optimizer(settings, list(parameters.values()))
    optimizer.zero_grad()  # training that ran out of memory has left its gradients
    if job.keeps_optimizer_state:
        for own in groups:
            optimizer_state.restore(optimizer, own.parameters, own.optimizer_state)
    progress, first = TrainingProgress(settings.momentum), 0
    if checkpoint is not None:
        first = _resume(checkpoint, job, groups, parameters, optimizer, progress, gradients.kind)
    remaining = range(first, gradients.steps)
    work = Training(tuple(filter(None, [job.context.client])), total=len(remaining))
    for step in track(remaining, work, measure=lambda now: with_measurements(now, [progress])):
        rate = job.learning_rate(step, gradients.steps)
        batches, losses = gradients.compute(step, stopwatch)
        if job.penalty is not None:
            job.penalty(parameters).backward()
        limit = settings.max_grad_norm
        share, *_ = [optimizer_state.clip(own.parameters.values(), limit) for own in groups]
        optimizer_state.step(optimizer, rate)
        progress.add(batches, losses, rate, share)
        stopwatch.lap("optimizer")
        if checkpoint is not None:
            checkpoint.save_if_due(step + 1, parameters, optimizer, progress.numbers, progress.sums)
    if job.keeps_optimizer_state:
        for own in groups:
            optimizer_state.save(optimizer, own.parameters, own.optimizer_state)
    spent, joules = stopwatch.seconds(), stopwatch.joules()
    return progress.result(gradients.steps, spent, settings.sums_gradients, joules)


def _resume(
    checkpoint: TrainingCheckpoint,
    job: TrainingJob,
    groups: Sequence[TrainedGroup],
    parameters: Mapping[str, Parameter],
    optimizer: Optimizer,
    progress: TrainingProgress,
    kind: str,
) -> int:
    """Continue a training that was killed; return the number of steps that are done.

    kind: of its gradients.
    """
    checkpoint.begin(job.context, " ".join(filter(None, [_start(job, groups, parameters), kind])))
    restored = checkpoint.restore(parameters, optimizer)
    if restored is None:
        return 0
    done, numbers, sums = restored
    progress.restore(numbers, sums)
    return done


def _start(
    job: TrainingJob, groups: Sequence[TrainedGroup], parameters: Mapping[str, Parameter]
) -> str:
    """A text that tells a training from others of the same round: its start and its settings."""
    words = (hanse.__version__, job.settings, job.split, type(job.objective).__name__)
    states = [digest(own.optimizer_state) for own in groups]
    return " ".join([digest(parameters), *states, *map(str, words)])


def _optimizer(settings: TrainingSettings, parameters: list[Parameter]) -> Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = parameters[0].device.type == "cpu"  # one pass over each tensor and its state
    if settings.optim == "sgd":
        momentum = settings.momentum
        return SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=fused)
    return AdamW(parameters, rate, weight_decay=decay, fused=fused)
