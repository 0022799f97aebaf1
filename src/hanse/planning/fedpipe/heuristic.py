"""Allocations without a solver: FedPipe's two stages, and one rank for all matrices.

The two stages are those of the paper's description: first the matrices, by their scores; then, silo
by silo, a form of training and ranks by their gain for what they cost. How ties and costs are
ordered is a reconstruction.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from hanse.planning.fedpipe.bounds import refuse_unfit
from hanse.planning.fedpipe.problem import (
    NOTHING,
    Allocation,
    Problem,
    SiloChoices,
    SiloPlan,
    chosen,
    fits,
    gain,
    holds,
    memory,
    seconds,
)

TINY = 1e-12  # a share of memory and seconds that costs nothing


def two_stage(problem: Problem) -> Allocation:
    """The most important matrices; then each silo's form and ranks, whichever gain most for it.

    A silo's ranks grow from none in each form that fits, and from those of `uniform`, below which
    it therefore never is. Raises UserError if a silo's machine holds no form of training within the
    bounds.
    """
    even = uniform(problem)
    kept = _important(problem)
    pairs = zip(problem.silos, even.silos, strict=True)
    return Allocation(tuple(_greedy(problem, silo, kept, plan) for silo, plan in pairs))


def uniform(problem: Problem) -> Allocation:
    """The same rank for the most important matrices at all silos, the largest that all can hold.

    Each silo takes the form that gains most beside it. Raises UserError if a silo's machine holds
    no form of training within the bounds.
    """
    refuse_unfit(problem)
    kept = _important(problem)
    least = min(len(ranks) for silo in problem.silos for ranks in silo.ranks)
    candidates = [_same(problem, kept, rank) for rank in range(least)]
    found = [plan for plan in candidates if plan is not None and fits(problem, plan)]
    plans = max(found, key=lambda p: gain(problem, p)) if found else _same(problem, set(), 0)
    assert plans is not None
    return Allocation(plans)


def _important(problem: Problem) -> set[int]:
    """The matrices that can gain most, as many as may get an adapter."""
    order = sorted(range(problem.count), key=lambda matrix: -_worth(problem, matrix))
    return set(order[: problem.most])


def _worth(problem: Problem, matrix: int) -> float:
    """The most that a matrix can gain over all silos."""
    return sum(
        silo.weight * max((rank.gain for rank in silo.ranks[matrix]), default=0.0)
        for silo in problem.silos
    )


def _same(problem: Problem, matrices: set[int], rank: int) -> tuple[SiloPlan, ...] | None:
    """One rank for these matrices at all silos; None if one of them cannot hold it."""
    ranks = tuple(rank if m in matrices else None for m in range(problem.count))
    plans = []
    for silo in problem.silos:
        fitting = [p for p in _with_forms(silo, ranks) if holds(problem, silo, p)]
        if not fitting:
            return None
        plans.append(max(fitting, key=lambda plan: silo.forms[plan.form].gain))
    return tuple(plans)


def _with_forms(silo: SiloChoices, ranks: tuple[int | None, ...]) -> Iterable[SiloPlan]:
    return (SiloPlan(form, ranks) for form in range(len(silo.forms)))


def _greedy(problem: Problem, silo: SiloChoices, kept: set[int], even: SiloPlan) -> SiloPlan:
    """The best of all forms that fit, each with ranks by their gain for what they cost.

    It has an adapter if any of them has room for one.
    """
    empty: tuple[int | None, ...] = (None,) * problem.count
    starts = [even, *(plan for plan in _with_forms(silo, empty) if holds(problem, silo, plan))]
    plans = [_grown(problem, silo, plan, kept) for plan in starts]
    return max(plans, key=lambda p: (p.trains, sum(choice.gain for choice in chosen(silo, p))))


def _grown(problem: Problem, silo: SiloChoices, plan: SiloPlan, kept: set[int]) -> SiloPlan:
    """Raise one matrix's rank after another to the next one, the best gain for its cost first."""
    ranks, form = list(plan.ranks), silo.forms[plan.form]
    kept = {matrix for matrix in kept if problem.reaches(form, matrix)}
    bytes_left = silo.memory - memory(silo, plan)
    seconds_left = problem.seconds - seconds(silo, plan)
    steps = [step for m in sorted(kept) if (step := _step(problem, silo, m, ranks[m]))]
    heapq.heapify(steps)
    while steps:
        step = heapq.heappop(steps)
        if step.memory > bytes_left or step.seconds > seconds_left:
            continue  # a larger rank does not fit either
        ranks[step.matrix] = step.rank
        bytes_left, seconds_left = bytes_left - step.memory, seconds_left - step.seconds
        if further := _step(problem, silo, step.matrix, step.rank):
            heapq.heappush(steps, further)
    return SiloPlan(plan.form, tuple(ranks))


class _Step(NamedTuple):
    """The next larger rank of a matrix; steps are ordered by their gain for what they cost."""

    order: float
    matrix: int
    rank: int
    memory: float
    seconds: float


def _step(problem: Problem, silo: SiloChoices, matrix: int, rank: int | None) -> _Step | None:
    """The step from a rank to the next one; None if there is none."""
    place = 0 if rank is None else rank + 1
    if place >= len(silo.ranks[matrix]):
        return None
    before = NOTHING if rank is None else silo.ranks[matrix][rank]
    after = silo.ranks[matrix][place]
    taken, longer = after.memory - before.memory, after.seconds - before.seconds
    cost = taken / silo.memory + longer / problem.seconds
    return _Step(-(after.gain - before.gain) / max(cost, TINY), matrix, place, taken, longer)
