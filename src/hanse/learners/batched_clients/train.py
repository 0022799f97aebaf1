"""Many clients in one forward pass: their rows together through one frozen base model.

Each client trains as if alone: its own batches, schedule, clipping, penalty and optimizer. Only
what is the same for all, the frozen model's matrix products, is done for all at once.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanse.federation.interfaces.results import TrainResult
from hanse.learners.batched_clients import adapted_layers
from hanse.learners.batched_clients.batched_layers import Drop
from hanse.learners.batched_clients.client_view import ClientView
from hanse.learners.batched_clients.member import Member
from hanse.learners.batched_clients.optimizer import Steps
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.training.batches import Batch, join
from hanse.learners.training.out_of_memory import is_shortage, refusal, release_memory
from hanse.learners.training.timer import Stopwatch
from hanse.learners.training.training_progress import TrainingProgress, with_measurements
from hanse.observability.progress import track
from hanse.observability.steps import Training

log = logging.getLogger(__name__)


def train(members: Sequence[Member]) -> list[TrainResult]:
    """Train all clients, those that are alike together; what each has done, in their order.

    Where memory does not hold as many, fewer at a time. Raises UserError if not even one fits.
    """
    return _grouped(members, _in_memory)


def attempt(members: Sequence[Member]) -> list[TrainResult]:
    """The same, but never fewer at a time: what is raised when memory runs out is passed on."""
    return _grouped(members, lambda group: _Cohort(group).train())


def _grouped(
    members: Sequence[Member], work: Callable[[list[Member]], list[TrainResult]]
) -> list[TrainResult]:
    """What `work` makes of each group of clients that are alike, in the order of the clients."""
    groups = defaultdict(list)
    for member in members:
        groups[member.alike].append(member)
    fits: dict[int, TrainResult] = {}
    for group in groups.values():
        fits.update(zip(map(id, group), work(group), strict=True))
    return [fits[id(member)] for member in members]


def _in_memory(group: list[Member]) -> list[TrainResult]:
    """Train clients that are alike, in halves once memory has not held them all."""
    backbone, count = group[0].backbone, len(group)
    most = backbone.together or count
    if count > most:
        parts = [group[first : first + most] for first in range(0, count, most)]
        return [fit for part in parts for fit in _in_memory(part)]
    before = [(member.tensors, dict(member.job.optimizer_state)) for member in group]
    try:
        return _Cohort(group).train()
    except Exception as error:
        if not is_shortage(error):
            raise
        if count == 1:
            raise refusal(error) from None
    # Only here is the error gone, and with it the frames that held the failed cohort.
    for member, (tensors, optimizer_state) in zip(group, before, strict=True):
        member.tensors = tensors
        member.job.optimizer_state.clear()
        member.job.optimizer_state.update(optimizer_state)
    release_memory(backbone.device)
    backbone.together = half = (count + 1) // 2
    log.warning(
        "memory does not hold %d clients at a time, so from here on %d train together; set "
        "clients_per_pass=%d, or a run that is resumed may differ in its last bits",
        *(count, half, half),
    )
    return _in_memory(group)


@dataclass
class _ClientProgress:
    """A member's way through the round: the examples of each step's micro-batches, and its row."""

    member: Member
    steps: list[list[list[int]]]
    dropout_generator: torch.Generator
    progress: TrainingProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = TrainingProgress(self.member.job.settings.momentum)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        return self.member.job.batches(self.steps[step])

    def seed(self) -> int:
        """What draws the dropout of its next batch."""
        return int(torch.randint(2**31, (), generator=self.dropout_generator))

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.member.job.learning_rate(step, len(self.steps))


class _Cohort:
    """Clients that are alike, for one round. Those with most steps come first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.backbone = members[0].backbone
        self.courses = sorted(map(_course, members), key=lambda course: -len(course.steps))
        ordered = [course.member for course in self.courses]
        starts = [member.whole for member in ordered]
        found = adapted_layers.found(self.backbone.model, ordered[0].attached, starts)
        assert found is not None  # clients whose adapters cannot be stacked do not come here
        self.stack = StackedAdapters(
            found,
            starts,
            ordered[0].tensors.keys(),
            [member.attached.layer_scalings for member in ordered],
            torch.bfloat16 if self.backbone.bf16 else torch.float32,
            self.backbone.device,
        )
        self.drops = [member.attached.dropout for member in ordered]
        self.optimizer = Steps(self.stack, ordered)

    def train(self) -> list[TrainResult]:
        """Train all; what each has done, in the order of the members."""
        watch = Stopwatch(self.backbone.device)
        steps = range(len(self.courses[0].steps))
        clients = tuple(course.member.job.context.client for course in self.courses)
        work = Training(clients, total=len(steps))
        with self.backbone.without_adapter(), self.backbone.with_residual(self.members[0].residual):
            for step in track(steps, work, measure=self._measured):
                self._step(step, watch)
        self.optimizer.leave()
        return self._fits(watch.seconds())

    def _measured(self, work: Training) -> Training:
        return with_measurements(work, [course.progress for course in self.courses])

    def _step(self, step: int, watch: Stopwatch) -> None:
        """One optimizer step of all who have one left."""
        active = [course for course in self.courses if step < len(course.steps)]
        parts = [course.batches(step) for course in active]
        items = [sum(batch.items for batch in own) for own in parts]
        losses = [torch.zeros((), device=self.backbone.device)] * len(active)
        for at in range(max(map(len, parts))):
            batches = [own[at] if at < len(own) else None for own in parts]
            watch.lap("data")
            total = torch.zeros((), device=self.backbone.device)
            # Backward within, too: layers may be computed again there.
            with self.stack.applied(len(active), self._drop(active, batches)):
                for index, loss in self._losses(active, batches):
                    size = parts[index][at].items
                    total = total + loss * (size / items[index])
                    losses[index] = losses[index] + loss.detach() * size
                watch.lap("forward")
                total.backward()
            watch.lap("backward")
        rates = [course.rate(step) for course in active]
        shares = self.optimizer.step(rates)
        for course, own, loss, rate, left in zip(active, parts, losses, rates, shares, strict=True):
            course.progress.add(own, loss, rate, left)
        watch.lap("optimizer")

    def _losses(
        self, active: Sequence[_ClientProgress], batches: Sequence[Batch | None]
    ) -> Iterator[tuple[int, Tensor]]:
        """The loss of each client that has a batch, and the client's place."""
        together, adapter = join(batches), self.members[0].adapter
        with self.backbone.with_cached_layers(adapter, together.ids, together.lengths):
            logits = self.backbone.logits(together.ids, together.at, together.lengths)
        for index, own in enumerate(logits.split(together.counts)):
            batch, job = batches[index], active[index].member.job
            if batch is not None:
                yield index, job.objective.loss(ClientView(job.learner, batch, own), batch)

    def _drop(
        self, active: Sequence[_ClientProgress], batches: Sequence[Batch | None]
    ) -> Drop | None:
        """Dropout for these batches, if any client has it."""
        shares = self.drops[: len(active)]
        if not any(shares):
            return None
        shapes = [(0, 0) if b is None else (b.ids.shape[0], b.ids.shape[1]) for b in batches]
        # Each draws for its own batches alone, however many others have in a step.
        seeds = [0 if b is None else c.seed() for c, b in zip(active, batches, strict=True)]
        return Drop(shares, seeds, shapes)

    def _fits(self, spent: dict[str, float]) -> list[TrainResult]:
        """What each member has done; the time is shared out by the tokens."""
        every = sum(course.progress.tokens for course in self.courses)
        found = {}
        for course in self.courses:
            share = course.progress.tokens / every
            own = {what: seconds * share for what, seconds in spent.items()}
            sums = course.member.job.settings.sums_gradients
            found[id(course.member)] = course.progress.result(len(course.steps), own, sums)
        return [found[id(member)] for member in self.members]


def _course(member: Member) -> _ClientProgress:
    dropout_generator = torch.Generator()
    dropout_generator.manual_seed(member.job.context.derive("dropout"))
    return _ClientProgress(member, member.job.sample_batches(), dropout_generator)
