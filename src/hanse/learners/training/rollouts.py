"""Rollouts: examples that an objective makes by the model while it is trained."""

from collections.abc import Sequence
from typing import Any

import torch

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective


def rolled_out(
    objective: Objective, learner: Learner, examples: Sequence[Any], seed: int
) -> Sequence[Any]:
    """The examples that a micro-batch trains on instead of its own, or these.

    Nothing is dropped meanwhile, and torch's global generators, which the objective finds seeded,
    continue afterwards where they were.
    """
    if not objective.rolls_out:
        return examples
    with torch.no_grad(), torch.random.fork_rng(), learner.without_dropout():
        torch.manual_seed(seed)
        made = objective.rollout(learner, examples, seed)
    if not made:
        raise TypeError(f"{type(objective).__name__}.rollout has returned no example")
    return made
