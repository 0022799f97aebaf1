"""Successive halving, and the share of trials that it promises."""

import pytest

from hanse.planning.search import halving


@pytest.mark.parametrize(
    ("rounds", "rungs"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (6, [1, 2, 6]), (100, [12, 34, 100])]
)
def test_rungs_end_with_all_rounds(rounds: int, rungs: list[int]) -> None:
    assert halving.rungs(rounds) == rungs


@pytest.mark.parametrize(("trials", "kept"), [(1, 1), (2, 2), (3, 2), (7, 3), (24, 8), (27, 9)])
def test_a_third_goes_on_and_two_at_least(trials: int, kept: int) -> None:
    scores = {number: (number / 100, 0.0) for number in range(trials)}
    left = [number for number in scores if halving.goes_on(number, scores, lower=False)]
    assert left == list(range(trials - kept, trials))
    lowest = [number for number in scores if halving.goes_on(number, scores, lower=True)]
    assert lowest == list(range(kept))


def test_of_equal_scores_the_smaller_loss_and_then_the_first_goes_on() -> None:
    scores = {0: (0.5, 0.9), 1: (0.5, 0.3), 2: (0.5, 0.3), 3: (0.4, 0.1)}
    assert halving.ranked(scores, lower=False) == [1, 2, 0, 3]
    assert [n for n in scores if halving.goes_on(n, scores, lower=False)] == [1, 2]


def test_the_rounds_of_all_trials_are_counted() -> None:
    assert halving.all_rounds(24, [1, 2, 6]) == 24 * 1 + 8 * 1 + 3 * 4
