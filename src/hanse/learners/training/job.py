"""The arguments of one training of one client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.nn import Parameter

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty
from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.marks import MixedRows
from hanse.learners.training.packing import packed_rows
from hanse.learners.training.rollouts import rolled_out
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

OBJECTIVE = "objective."  # before the names of an objective's own parameters


@dataclass(frozen=True)
class TrainedGroup:
    """Parameters that are clipped by one norm, and their optimizer state of the last round.

    prefix: before their names among all that are trained; the state has the names without it.
    """

    prefix: str
    parameters: Mapping[str, Parameter]
    optimizer_state: Memory


@dataclass(frozen=True)
class TrainingJob:
    """A training of a learner on a split, for the round at `context`, one of `rounds`.

    The client trains alone or in one forward pass with others, by the same arguments.

    penalty: a scalar of the trained tensors, added to the loss of every step.
    optimizer_state: the optimizer's state after the last round. If the settings keep it, training
        starts from it and updates it in place.
    beside: the jobs of the learner's models that are trained in the same steps, by name. Of these
        jobs only the learner and the optimizer's state are used.
    mixed: rows that are mixed into each micro-batch beside those of the split.
    """

    learner: Learner
    split: str
    settings: TrainingSettings
    objective: Objective
    context: RoundContext
    rounds: int
    penalty: Penalty | None
    optimizer_state: Memory
    beside: Mapping[str, "TrainingJob"] = field(default_factory=dict)
    mixed: MixedRows = field(default_factory=MixedRows)

    def groups(self) -> list[TrainedGroup]:
        """All that is trained: the learner's parameters, the objective's, those of models beside.

        The objective's optimizer state is kept with the learner's.
        """
        loss = {OBJECTIVE + name: p for name, p in self.objective.parameters().items()}
        groups = [
            TrainedGroup("", dict(self.learner.parameters()), self.optimizer_state),
            *([TrainedGroup("", loss, self.optimizer_state)] if loss else []),
        ]
        for name, job in self.beside.items():
            live = dict(job.learner.parameters())
            groups.append(TrainedGroup(f"{name}.", live, job.optimizer_state))
        return groups

    @property
    def keeps_optimizer_state(self) -> bool:
        """True if the optimizer continues from the last round."""
        return self.settings.optimizer_state == "keep"

    def sample_batches(self) -> list[list[list[int]]]:
        """(steps, micro-batches, indices): the examples of each micro-batch of the round."""
        sizes = self.learner.lengths(self.split)
        if not self.settings.packing:
            return sample_batches(sizes, self.settings, self.context)
        rows = packed_rows(sizes, self.learner.max_length)
        totals = [sum(sizes[index] for index in row) for row in rows]
        return [
            [[index for row in batch for index in rows[row]] for batch in step]
            for step in sample_batches(totals, self.settings, self.context)
        ]

    def batches(self, number: int, step: Sequence[Sequence[int]]) -> list[Any]:
        """The micro-batches of one step, from the indices of their examples.

        number: of the step in the round, which with that of the micro-batch seeds a rollout.
        """
        examples = self.learner.examples(self.split)
        batches = []
        for part, indices in enumerate(step):
            seed = self.context.derive(f"rollout/{number}/{part}")
            rows = rolled_out(self.objective, self.learner, [examples[i] for i in indices], seed)
            mixed = self.mixed.drawn(len(indices), self.context.derive(f"mixed/{number}/{part}"))
            batch = self.learner.batch([*rows, *mixed] if mixed else rows)
            batches.append(self.objective.with_targets(batch, indices))
        return batches

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of one of the round's steps; the schedule runs over all rounds."""
        done = (max(1, self.context.round) - 1 + step / steps) / self.rounds
        return self.settings.rate(done, steps * self.rounds)
