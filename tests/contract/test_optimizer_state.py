"""Optimizer state may be kept only where a round's tensors continue those of the last one.

They do if (1) a client that is alone goes on with the tensors that it ended with, and (2) what is
not trained, frozen factors or a change of the base, is in every round as it was when the same
tensors were trained before.
"""

from itertools import pairwise

import pytest
import torch

from contract.cases import CASES, WHOLE, built
from contract.rounds import Round, first, rounds

OTHER_REASONS = {
    "ditto": "two trainings of a round would share one state",
    "fednova": "its normalizer counts from a velocity of zero",
    "fedadapter": "a client trains parts of different sizes",
}
NO_MEAN = {"feddyn", "fedopt"}  # a step beyond the mean, in the same coordinates
NAMES = sorted({case.name for case in CASES} - WHOLE)


def continues(made: list[Round]) -> bool:
    """Whether each training begins where the one before has ended."""
    for before, after in pairwise(made):
        begun = {**after.training.fixed, **after.training.start}
        for name, tensor in before.training.end.items():
            if not torch.allclose(begun[name], tensor, atol=1e-5):
                return False
    return True


def stays(made: list[Round]) -> bool:
    """Whether what is not trained is always the same while the same tensors are trained."""
    for index, before in enumerate(made):
        for after in made[index + 1 :]:
            one, other = before.training, after.training
            if one.start.keys() != other.start.keys():
                continue
            if one.fixed.keys() != other.fixed.keys():
                return False
            if not all(torch.allclose(t, other.fixed[n], atol=1e-5) for n, t in one.fixed.items()):
                return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_state_is_kept_only_where_it_means_something(name: str) -> None:
    case = first(name)
    algorithm = built(case)
    alone = name in NO_MEAN or continues(rounds(algorithm, case, count=4))
    meaningful = alone and stays(rounds(algorithm, case, clients=3, count=4))
    assert algorithm.resets_optimizer == (not meaningful or name in OTHER_REASONS)
