"""The arguments of one training of one client."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty
from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.packing import packed_rows
from hanse.learners.training.rollouts import rolled_out
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class TrainingJob:
    """A training of a learner on a split, for the round at `context`, one of `rounds`.

    The client trains alone or in one forward pass with others, by the same arguments.

    penalty: a scalar of the trained tensors, added to the loss of every step.
    optimizer_state: the optimizer's state after the last round. If the settings keep it, training
        starts from it and updates it in place.
    """

    learner: Learner
    split: str
    settings: TrainingSettings
    objective: Objective
    context: RoundContext
    rounds: int
    penalty: Penalty | None
    optimizer_state: Memory

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
            rows = [examples[index] for index in indices]
            batches.append(self.learner.batch(rolled_out(self.objective, self.learner, rows, seed)))
        return batches

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of one of the round's steps; the schedule runs over all rounds."""
        done = (max(1, self.context.round) - 1 + step / steps) / self.rounds
        return self.settings.rate(done, steps * self.rounds)
