"""Ranks, batch sizes and bits for silos: the program, the two stages and one rank for all."""

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hanse.errors import UserError
from hanse.planning.fedpipe.bounds import _enough
from hanse.planning.fedpipe.heuristic import two_stage, uniform
from hanse.planning.fedpipe.problem import Choice, Problem, SiloChoices, SiloPlan, fits, gain
from hanse.planning.fedpipe.program import SLACK, best
from hanse.planning.fedpipe.solution import solved

FORMS = (("nf4", 0.0, 0.3, 1.3), ("int8", 0.02, 0.5, 1.2), ("bf16", 0.03, 1.0, 1.0))


def choices(draw: np.random.Generator, name: str, matrices: int, ranks: int) -> SiloChoices:
    """A silo with a machine and scores of its own."""
    score, size = draw.lognormal(0, 1, matrices), draw.integers(1, 4, matrices)
    speed = draw.uniform(0.5, 2)
    rank_choices = tuple(
        tuple(
            Choice(
                f"rank {2**rank}",
                float(score[m] * np.log2(1 + 2**rank)),
                float(0.01 * 2**rank * size[m]),
                float(0.005 * 2**rank * size[m] * speed),
            )
            for rank in range(1, ranks + 1)
        )
        for m in range(matrices)
    )
    forms = tuple(Choice(name, gain, memory, 0.3 * s * speed) for name, gain, memory, s in FORMS)
    memory = float(draw.uniform(0.35, 1.4))
    return SiloChoices(name, float(draw.uniform(0.1, 1)), memory, forms, rank_choices)


def instance(seed: int, silos: int = 2, matrices: int = 3, ranks: int = 2) -> Problem:
    draw = np.random.default_rng(seed)
    some = tuple(choices(draw, f"silo-{n}", matrices, ranks) for n in range(1, silos + 1))
    most = int(draw.integers(1, matrices + 1))
    return Problem(some, float(draw.uniform(0.8, 1.2)), most)


def deep(problem: Problem) -> Problem:
    """The same, where each form reaches some matrices only: the less, the less time it takes."""
    depths = tuple(range(1, problem.count + 1))
    silos = tuple(
        replace(
            silo,
            forms=tuple(
                replace(form, depth=depth, seconds=form.seconds * (0.4 + 0.2 * depth))
                for form in silo.forms
                for depth in depths
            ),
        )
        for silo in problem.silos
    )
    return replace(problem, silos=silos, depths=depths)


def brute_force(problem: Problem) -> float:
    """The largest gain of all plans there are."""
    plans = [
        [
            SiloPlan(form, ranks)
            for form in range(len(silo.forms))
            for ranks in itertools.product(*((None, *range(len(r))) for r in silo.ranks))
            if any(rank is not None for rank in ranks)
        ]
        for silo in problem.silos
    ]
    return max(gain(problem, some) for some in itertools.product(*plans) if fits(problem, some))


@pytest.mark.parametrize("made", [instance, lambda seed: deep(instance(seed))])
def test_the_program_is_as_good_as_all_plans_tried_and_the_others_are_in_their_order(
    made: Callable[[int], Problem],
) -> None:
    gains = []
    for problem in map(made, range(50)):
        found = [best(problem), two_stage(problem), uniform(problem)]
        for plan in found:
            assert plan is not None and fits(problem, plan.silos)
        program, stages, even = (gain(problem, plan.silos) for plan in found if plan)
        assert program == pytest.approx(brute_force(problem), rel=1e-6)
        assert program >= stages - 1e-9 and stages >= even - 1e-9
        gains.append((program, stages, even))
    means = np.mean(gains, axis=0)
    assert means[0] > means[1] > means[2]  # not always the same plan


def test_a_form_that_stops_above_a_matrix_excludes_it() -> None:
    forms = (Choice("shallow", 0.0, 0.0, 1.0, depth=1), Choice("deep", 0.0, 0.0, 2.0, depth=2))
    ranks = ((Choice("rank 8", 1.0, 0.0, 0.0),), (Choice("rank 8", 5.0, 0.0, 0.0),))
    silo = SiloChoices("silo-1", 1.0, 1.0, forms, ranks)
    for seconds, gained in ((1.5, 1.0), (2.5, 6.0)):
        problem = Problem((silo,), seconds, depths=(1, 2))
        for plan in (best(problem), two_stage(problem), uniform(problem)):
            assert plan is not None and fits(problem, plan.silos)
            assert gain(problem, plan.silos) <= gained
        found = best(problem)
        assert found is not None and gain(problem, found.silos) == gained
    assert not fits(Problem((silo,), 9.0, depths=(1, 2)), (SiloPlan(0, (None, 0)),))


def test_no_silo_is_left_without_an_adapter_for_more_rows() -> None:
    forms = (Choice("an eighth", 0.35, 0.0, 0.5), Choice("a quarter", 0.5, 0.0, 0.99))
    silo = SiloChoices("silo-1", 1.0, 1.0, forms, ((Choice("rank 2", 0.05, 0.0, 0.1),),))
    problem = Problem((silo,), 1.0)
    for plan in (best(problem), two_stage(problem), solved(problem)[0]):
        assert plan is not None and plan.silos == (SiloPlan(0, (0,)),)
    with pytest.raises(UserError, match=r"silo-1 takes 0\.6 s for a round by an eighth"):
        best(replace(problem, seconds=0.55))


def test_a_silo_that_holds_no_matrix_of_the_others_is_named() -> None:
    """One matrix may have adapters, and each silo holds another one."""
    small, large = Choice("rank 2", 1.0, 0.1, 0.0), Choice("rank 2", 1.0, 9.0, 0.0)
    forms = (Choice("nf4", 0.0, 0.5, 0.1),)
    silos = tuple(
        SiloChoices(name, weight, 1.0, forms, ranks)
        for name, weight, ranks in (
            ("silo-1", 0.9, ((small,), (large,))),
            ("silo-2", 0.1, ((large,), (small,))),
        )
    )
    with pytest.raises(UserError, match=r"silo-. cannot hold an adapter within the bounds; raise"):
        solved(Problem(silos, 1.0, matrices=1))


def test_many_silos_and_matrices_are_solved_within_the_limit() -> None:
    problem = instance(7, silos=20, matrices=210, ranks=5)
    start = time.process_time()
    stages = two_stage(problem)
    assert time.process_time() - start < 15  # some tenths of a second; quadratic growth shows
    assert fits(problem, stages.silos)
    found = best(problem, limit=3)
    if found is not None:
        assert fits(problem, found.silos) and found.gap is not None and found.gap >= 0


def test_no_more_matrices_get_an_adapter_than_are_allowed() -> None:
    problem = replace(instance(3, silos=3, matrices=5), matrices=2)
    for plan in (best(problem), two_stage(problem), uniform(problem)):
        assert plan is not None
        used = {m for silo in plan.silos for m, rank in enumerate(silo.ranks) if rank is not None}
        assert 0 < len(used) <= 2


@pytest.mark.parametrize("solve", [best, two_stage, uniform])
def test_a_silo_that_holds_nothing_is_named_with_what_would_fit(solve) -> None:  # type: ignore[no-untyped-def]
    problem = instance(1)
    small = replace(problem.silos[1], memory=0.1)
    with pytest.raises(UserError) as refused:
        solve(replace(problem, silos=(problem.silos[0], small)))
    assert "silo-2 has 1e-10 GB" in str(refused.value) and "nf4" in str(refused.value)
    assert "silo-1" not in str(refused.value) and "; give it more memory" in str(refused.value)
    both = tuple(replace(silo, memory=0.1) for silo in problem.silos)
    with pytest.raises(UserError, match=r"silo-1 has .*; silo-2 has .*; give them") as refused:
        solve(replace(problem, silos=both))
    assert str(refused.value).count("more memory") == 1


@pytest.mark.parametrize("solve", [best, two_stage, uniform])
def test_a_bound_that_nobody_meets_is_refused_with_the_least_that_one_would(solve) -> None:  # type: ignore[no-untyped-def]
    problem = instance(1)
    least = max(
        min(f.seconds for f in silo.forms if f.memory <= silo.memory)
        + min(ranks[0].seconds for ranks in silo.ranks)
        for silo in problem.silos
    )
    said = rf"takes {least:.3g} s .*the bound is 0\.001 s.*; raise the bound to ([0-9.]+) s"
    with pytest.raises(UserError, match=said) as refused:
        solve(replace(problem, seconds=0.001))
    named = re.search(said, str(refused.value))
    assert named and least <= float(named[1]) <= 1.011 * least
    assert solve(replace(problem, seconds=float(named[1]))) is not None


@pytest.mark.parametrize("least", [0.000123, 0.0999, 0.514, 9.9999, 12.34, 123456.0])
def test_the_least_bounds_of_messages_are_enough_and_no_more_than_a_digit_above(
    least: float,
) -> None:
    assert least * (1 + SLACK) < float(_enough(least)) <= 1.0101 * least
    assert "e+" not in _enough(least)
