"""Many clients in one forward pass: their rows together through one frozen base model.

Each client trains as if alone: its own batches, schedule, clipping, penalty and optimizer. Only
what is the same for all, the frozen model's matrix products, is done for all at once.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from hanse.interfaces import Learner, Objective
from hanse.learners import adapters
from hanse.learners.backbone import Backbone
from hanse.learners.batches import Batch, joined
from hanse.learners.seat import Seat
from hanse.learners.stack import Drop, Stack, stackable
from hanse.learners.stopwatch import Stopwatch
from hanse.learners.training import Seen, Training, draw, share_done
from hanse.packed import lengths
from hanse.progress import track
from hanse.randomness import Moment
from hanse.tensors import Tensors
from hanse.values import Fit, Memory, Penalty

STEP = "step"  # the optimizer's count of its steps; its other state is as large as the tensors


@dataclass
class Member:
    """One client's training; `train` leaves the trained tensors in `tensors`.

    kept: the optimizer's state from the last round, if the settings keep it; it is updated.
    """

    learner: Learner
    backbone: Backbone
    adapter: str
    split: str
    settings: Training
    objective: Objective
    moment: Moment
    rounds: int
    penalty: Penalty | None
    tensors: Tensors
    kept: Memory

    @property
    def alike(self) -> tuple[Any, ...]:
        """What clients must share to train together."""
        return id(self.backbone), tuple(self.tensors), self.settings.optim

    @property
    def joins(self) -> bool:
        """Whether a cohort can do what this client asks for; if not, it trains by itself."""
        states = ((*key.rpartition(":")[::2], value) for key, value in self.kept.items())
        whole = all(
            name in self.tensors and (state == STEP or value.shape == self.tensors[name].shape)
            for name, state, value in states
        )
        return whole and self.objective.shared and stackable(self.backbone.model, self.tensors)


def train(members: Sequence[Member]) -> list[Fit]:
    """Train all clients, those that are alike together; what each has done, in their order."""
    groups = defaultdict(list)
    for member in members:
        groups[member.alike].append(member)
    fits: dict[int, Fit] = {}
    for group in groups.values():
        fits.update(zip(map(id, group), _Cohort(group).train(), strict=True))
    return [fits[id(member)] for member in members]


@dataclass
class _Course:
    """A member's way through the round: the examples of each step's micro-batches, and its row."""

    member: Member
    steps: list[list[list[int]]]
    dropping: torch.Generator
    seen: Seen = field(default_factory=Seen)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        learner = self.member.learner
        examples = learner.examples(self.member.split)
        return [learner.batch([examples[index] for index in part]) for part in self.steps[step]]

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        member = self.member
        done = share_done(member.moment, step, len(self.steps), member.rounds)
        return member.settings.rate(done)


class _Cohort:
    """Clients that are alike, for one round. Those with most steps come first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.backbone = members[0].backbone
        self.courses = sorted(map(_course, members), key=lambda course: -len(course.steps))
        model, ordered = self.backbone.model, [course.member for course in self.courses]
        self.stack = Stack(
            model,
            [member.tensors for member in ordered],
            [adapters.scalings(model, member.adapter) for member in ordered],
            torch.bfloat16 if self.backbone.bf16 else torch.float32,
        )
        self.drops = [adapters.dropout(model, member.adapter) for member in ordered]
        self.rows = list(self.stack.rows.detach())
        self.optimizer = _optimizer(self.rows, ordered)
        for row, member in zip(self.rows, ordered, strict=True):
            if member.settings.optimizer_state == "keep" and member.kept:
                self.optimizer.state[row] = self._restored(row, member)

    def train(self) -> list[Fit]:
        """Train all; what each has done, in the order of the members."""
        watch = Stopwatch(self.backbone.device)
        first = self.courses[0]
        count = len(self.courses)
        what = "training " + (f"{count} clients" if count > 1 else first.member.moment.client)
        steps = range(len(first.steps))
        with self.backbone.bare():
            for step in track(steps, what, len(steps), numbers=first.seen.numbers):
                self._step(step, watch)
        for row, course in zip(self.rows, self.courses, strict=True):
            self._leave(row, course.member)
        return self._fits(watch.seconds())

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
        self._update(step, active)
        for course, own, loss in zip(active, parts, losses, strict=True):
            course.seen.add(own, loss, course.rate(step))
        watch.lap("optimizer")

    def _losses(
        self, active: Sequence[_Course], batches: Sequence[Batch | None]
    ) -> Iterator[tuple[int, Tensor]]:
        """The loss of each client that has a batch, and the client's place."""
        together = joined(batches)
        logits = self.backbone.logits(together.ids, together.at)
        for index, own in enumerate(logits.split(together.counts)):
            batch, member = batches[index], active[index].member
            if batch is not None:
                seat = Seat(member.learner, batch, own)
                yield index, member.objective.loss(seat, batch)

    def _drop(self, active: Sequence[_Course], batches: Sequence[Batch | None]) -> Drop | None:
        """Dropout for these batches, if any client has it."""
        shares = self.drops[: len(active)]
        if not any(shares):
            return None
        shapes = [(0, 0) if b is None else (b.ids.shape[0], b.ids.shape[1]) for b in batches]
        seeds = [int(torch.randint(2**31, (), generator=course.dropping)) for course in active]
        return Drop(shares, seeds, shapes)

    def _update(self, step: int, active: Sequence[_Course]) -> None:
        """Penalties, clipping and the optimizer's step, each client's by itself."""
        gradient = self.stack.rows.grad
        assert gradient is not None  # a step has at least one batch
        for index, course in enumerate(active):
            if course.member.penalty is not None:
                self._penalize(course.member, self.rows[index], gradient[index])
        most = [course.member.settings.max_grad_norm or torch.inf for course in active]
        norms = gradient[: len(active)].norm(dim=1)
        # As torch.nn.utils.clip_grad_norm_ does it for one client.
        share = torch.tensor(most, device=norms.device).div(norms + 1e-6).clamp(max=1.0)
        gradient[: len(active)].mul_(share[:, None])
        for index, (row, group) in enumerate(
            zip(self.rows, self.optimizer.param_groups, strict=True)
        ):
            row.grad = gradient[index] if index < len(active) else None
            group["lr"] = self.courses[index].rate(step) if index < len(active) else 0.0
        self.optimizer.step()
        self.stack.rows.grad = None

    def _penalize(self, member: Member, row: Tensor, gradient: Tensor) -> None:
        """Add a penalty's gradient to a client's."""
        assert member.penalty is not None
        live = self.stack.views(row.detach(), member.tensors)
        grads = self.stack.views(gradient, member.tensors)
        for name, view in live.items():
            view.requires_grad_()
            view.grad = grads[name]  # what flows in is added in place
        member.penalty(live).backward()

    def _leave(self, row: Tensor, member: Member) -> None:
        """Hand a client what it has trained, and its optimizer's state."""
        like = member.tensors
        if member.settings.optimizer_state == "keep":
            member.kept.clear()
            for state, value in self.optimizer.state[row].items():
                own = self.stack.views(value, like) if value.dim() else dict.fromkeys(like, value)
                for name, tensor in own.items():
                    member.kept[f"{name}:{state}"] = tensor.detach().cpu().clone()
        views = self.stack.views(row, like)
        member.tensors = {name: view.detach().cpu().clone() for name, view in views.items()}

    def _restored(self, row: Tensor, member: Member) -> dict[str, Tensor]:
        """The optimizer's state of a client's row, from what it kept."""
        found: dict[str, Tensor] = {}
        for key, value in member.kept.items():
            name, _, state = key.rpartition(":")
            if state == STEP:
                found[state] = value.clone()
                continue
            whole = found.setdefault(state, torch.zeros_like(row))
            self.stack.views(whole, member.tensors)[name].copy_(value)
        return found

    def _fits(self, spent: dict[str, float]) -> list[Fit]:
        """What each member has done; the time is shared out by the tokens."""
        every = sum(course.seen.tokens for course in self.courses)
        found = {}
        for course in self.courses:
            share = course.seen.tokens / every
            own = {what: seconds * share for what, seconds in spent.items()}
            found[id(course.member)] = course.seen.fit(len(course.steps), own)
        return [found[id(member)] for member in self.members]


def _course(member: Member) -> _Course:
    sizes = lengths(member.learner.examples(member.split))
    steps = draw(sizes, member.settings, member.moment.generator("examples"))
    dropping = torch.Generator()
    dropping.manual_seed(member.moment.derive("dropout"))
    return _Course(member, steps, dropping)


def _optimizer(rows: list[Tensor], members: Sequence[Member]) -> Optimizer:
    """One optimizer with a group for each client."""
    groups = [
        {"params": [row], "weight_decay": member.settings.weight_decay}
        for row, member in zip(rows, members, strict=True)
    ]
    if members[0].settings.optim == "sgd":
        for group, member in zip(groups, members, strict=True):
            group["momentum"] = member.settings.momentum
        return SGD(groups, lr=0.0, fused=True)
    return AdamW(groups, lr=0.0, fused=True)
