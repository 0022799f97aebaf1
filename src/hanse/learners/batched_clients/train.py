"""Trains many clients together: one forward pass of the frozen base model for all their rows.

Only the matrix products of the frozen model are shared. Each client has its own batches, schedule,
clipping, penalty and optimizer, as if it trained by itself.
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
from hanse.learners.batched_clients.optimizer import BatchedOptimizer
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.training.batches import Batch, join
from hanse.learners.training.out_of_memory import is_shortage, refusal, release_memory
from hanse.learners.training.timer import Stopwatch
from hanse.learners.training.training_progress import TrainingProgress, with_measurements
from hanse.observability.progress import track
from hanse.observability.steps import Training

log = logging.getLogger(__name__)


def train(members: Sequence[Member]) -> list[TrainResult]:
    """Train all clients, together where they can be; the result of each, in their order.

    If memory does not hold them, fewer train at a time. Raises UserError if not even one fits.
    """
    return _grouped(members, _in_memory)


def train_at_once(members: Sequence[Member]) -> list[TrainResult]:
    """The same, but never fewer at a time: raises the error of memory that runs out."""
    return _grouped(members, lambda group: _JointTraining(group).train())


def _grouped(
    members: Sequence[Member], work: Callable[[list[Member]], list[TrainResult]]
) -> list[TrainResult]:
    """The results of `work` on each group of clients that can train together, in their order."""
    groups = defaultdict(list)
    for member in members:
        groups[member.group].append(member)
    results: dict[int, TrainResult] = {}
    for group in groups.values():
        results.update(zip(map(id, group), work(group), strict=True))
    return [results[id(member)] for member in members]


def _in_memory(group: list[Member]) -> list[TrainResult]:
    """Train one group of clients; if memory does not hold them, halve the number at a time."""
    backbone, count = group[0].backbone, len(group)
    most = backbone.max_clients or count
    if count > most:
        parts = [group[first : first + most] for first in range(0, count, most)]
        return [result for part in parts for result in _in_memory(part)]
    before = [(member.tensors, dict(member.job.optimizer_state)) for member in group]
    try:
        return _JointTraining(group).train()
    except Exception as error:
        if not is_shortage(error):
            raise
        if count == 1:
            raise refusal(error) from None
    # Outside of `except`: within it the traceback keeps the tensors of the failed try in memory.
    for member, (tensors, optimizer_state) in zip(group, before, strict=True):
        member.tensors = tensors
        member.job.optimizer_state.clear()
        member.job.optimizer_state.update(optimizer_state)
    release_memory(backbone.device)
    backbone.max_clients = half = (count + 1) // 2
    log.warning(
        "memory does not hold %d clients at a time, so from here on %d train together; set "
        "clients_per_pass=%d, or a run that is resumed may differ in its last bits",
        *(count, half, half),
    )
    return _in_memory(group)


@dataclass
class _ClientProgress:
    """One client's round: the examples of each step's micro-batches, and its measurements."""

    member: Member
    steps: list[list[list[int]]]
    dropout_generator: torch.Generator
    progress: TrainingProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = TrainingProgress(self.member.job.settings.momentum)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        return self.member.job.batches(step, self.steps[step])

    def seed(self) -> int:
        """The seed of the dropout in its next batch."""
        return int(torch.randint(2**31, (), generator=self.dropout_generator))

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.member.job.learning_rate(step, len(self.steps))


class _JointTraining:
    """One round of clients that train together.

    Clients are sorted by their number of steps, most first, so that the clients that still train at
    a step are a prefix of the list. One backward pass over the sum of the losses keeps their
    gradients apart: a row of the stacked adapters meets the rows of its own client only.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.backbone = members[0].backbone
        self.clients = sorted(map(_client_progress, members), key=lambda one: -len(one.steps))
        ordered = [client.member for client in self.clients]
        starts = [member.whole for member in ordered]
        layers = adapted_layers.find(self.backbone.model, ordered[0].attached, starts)
        assert layers is not None  # Member.joins
        self.stack = StackedAdapters(
            layers,
            starts,
            ordered[0].tensors.keys(),
            [member.attached.layer_scalings for member in ordered],
            torch.bfloat16 if self.backbone.bf16 else torch.float32,
            self.backbone.device,
        )
        self.drops = [member.attached.dropout for member in ordered]
        self.optimizer = BatchedOptimizer(self.stack, ordered)

    def train(self) -> list[TrainResult]:
        """Train all clients; their results, in the order of the members."""
        watch = Stopwatch(self.backbone.device)
        steps = range(len(self.clients[0].steps))
        names = tuple(client.member.job.context.client for client in self.clients)
        work = Training(names, total=len(steps))
        with self.backbone.without_adapter(), self.backbone.with_residual(self.members[0].residual):
            for step in track(steps, work, measure=self._measured):
                self._step(step, watch)
        self.optimizer.write_back()
        return self._results(watch.seconds(), watch.joules())

    def _measured(self, work: Training) -> Training:
        """The step of progress with the clients' measurements."""
        return with_measurements(work, [client.progress for client in self.clients])

    def _step(self, step: int, watch: Stopwatch) -> None:
        """One optimizer step of all clients that have one left."""
        active = [client for client in self.clients if step < len(client.steps)]
        parts = [client.batches(step) for client in active]
        items = [sum(batch.items for batch in part) for part in parts]
        losses = [torch.zeros((), device=self.backbone.device)] * len(active)
        for at in range(max(map(len, parts))):
            batches = [part[at] if at < len(part) else None for part in parts]
            watch.lap("data")
            total = torch.zeros((), device=self.backbone.device)
            # backward() is inside, too: gradient checkpointing computes layers again there.
            with self.stack.applied(len(active), self._drop(active, batches)):
                for index, loss in self._losses(active, batches):
                    size = parts[index][at].items
                    total = total + loss * (size / items[index])
                    losses[index] = losses[index] + loss.detach() * size
                watch.lap("forward")
                total.backward()
            watch.lap("backward")
        rates = [client.rate(step) for client in active]
        shares = self.optimizer.step(rates)
        for client, *numbers in zip(active, parts, losses, rates, shares, strict=True):
            client.progress.add(*numbers)
        watch.lap("optimizer")

    def _losses(
        self, active: Sequence[_ClientProgress], batches: Sequence[Batch | None]
    ) -> Iterator[tuple[int, Tensor]]:
        """The number of each client that has a batch, and the client's loss."""
        joined, adapter = join(batches), self.members[0].adapter
        width, rows = joined.ids.shape[1], None
        if not any(self.drops[: len(active)]):  # dropout is drawn for padded rows
            rows = self.backbone.rows(adapter, joined.lengths, width, len(active))
        with self.backbone.with_cached_layers(adapter, joined.ids, joined.lengths):
            logits = self.backbone.logits(joined.ids, joined.at, joined.lengths, rows)
        for index, client_logits in enumerate(logits.split(joined.counts)):
            batch, job = batches[index], active[index].member.job
            if batch is not None:
                view = ClientView(job.learner, batch, client_logits)
                yield index, job.objective.loss(view, batch)

    def _drop(
        self, active: Sequence[_ClientProgress], batches: Sequence[Batch | None]
    ) -> Drop | None:
        """Dropout for these batches, if any client has it."""
        shares = self.drops[: len(active)]
        if not any(shares):
            return None
        shapes = [(0, 0) if b is None else (b.ids.shape[0], b.ids.shape[1]) for b in batches]
        # A client draws for its own batches only, even if others have more in this step.
        seeds = [0 if b is None else c.seed() for c, b in zip(active, batches, strict=True)]
        return Drop(shares, seeds, shapes)

    def _results(self, seconds: dict[str, float], joules: float | None) -> list[TrainResult]:
        """The result of each member; seconds and energy are divided in proportion to the tokens."""
        total = sum(client.progress.tokens for client in self.clients)
        results = {}
        for client in self.clients:
            share = client.progress.tokens / total
            own = {activity: spent * share for activity, spent in seconds.items()}
            energy = None if joules is None else share * joules
            sums = client.member.job.settings.sums_gradients
            result = client.progress.result(len(client.steps), own, sums, energy)
            results[id(client.member)] = result
        return [results[id(member)] for member in self.members]


def _client_progress(member: Member) -> _ClientProgress:
    """A client's round before its first step."""
    dropout_generator = torch.Generator()
    dropout_generator.manual_seed(member.job.context.derive("dropout"))
    return _ClientProgress(member, member.job.sample_batches(), dropout_generator)
