"""The silos that no plan can serve, with the least bound that one would meet."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.planning.fedpipe.problem import NOTHING, Choice, Problem, SiloChoices
from hanse.reports import formatting

MORE_MEMORY = "give {} more memory, a smaller model, or shorter rows"
ROUNDING = 2e-3  # of the last digit, which covers the bound's own slack
MORE_TIME = "raise the bound to {} s, or let {} train on fewer rows in a round"


def refuse_unfit(problem: Problem) -> None:
    """Raise UserError for silos whose machines hold no form of training within the bounds.

    A form with its smallest adapter is the least that a silo can do; other ranks only add to it.
    """
    narrow, slow, needed = [], [], 0.0
    for silo in problem.silos:
        least = _least(problem, silo)
        held = [form for form in least if form.memory <= silo.memory]
        fastest = min(held, key=_seconds, default=None)
        if fastest is None:
            narrow.append(_narrow(silo, least))
        elif fastest.seconds > problem.seconds:
            taken, most = map(formatting.digits, (fastest.seconds, problem.seconds))
            slow.append(
                f"{silo.name} takes {taken} s for a round by {fastest.name}, the fastest that its "
                f"memory holds, and the bound is {most} s"
            )
            needed = max(needed, fastest.seconds)
    reasons = [*narrow, MORE_MEMORY.format(_them(narrow))] if narrow else []
    reasons += [*slow, MORE_TIME.format(_enough(needed), _them(slow))] if slow else []
    if reasons:
        raise UserError("; ".join(reasons) + ".")


def _least(problem: Problem, silo: SiloChoices) -> list[Choice]:
    """A silo's forms, each with the smallest adapter that it may have."""
    smallest: dict[int | None, Choice] = {}
    for form in silo.forms:
        if form.depth not in smallest:
            reached = (m for m in range(problem.count) if problem.reaches(form, m))
            ranks = (silo.ranks[m][0] for m in reached if silo.ranks[m])
            smallest[form.depth] = min(ranks, key=_memory, default=NOTHING)
    pairs = ((form, smallest[form.depth]) for form in silo.forms)
    return [
        replace(form, memory=form.memory + rank.memory, seconds=form.seconds + rank.seconds)
        for form, rank in pairs
    ]


def _narrow(silo: SiloChoices, forms: Sequence[Choice]) -> str:
    """The memory that a silo has, and what would fit."""
    least = min(forms, key=_memory)
    return (
        f"{silo.name} has {silo.memory / 1e9:.3g} GB for training, and the least that would fit is "
        f"{least.name} with {_enough(least.memory / 1e9)} GB"
    )


def _enough(least: float) -> str:
    """The least bound that is met, rounded up in its third digit, so that it is enough."""
    unit = 10.0 ** (math.floor(math.log10(least)) - 2)
    return formatting.digits(math.ceil(least / unit + ROUNDING) * unit)


def _them(reasons: Sequence[str]) -> str:
    return "it" if len(reasons) == 1 else "them"


def _memory(choice: Choice) -> float:
    return choice.memory


def _seconds(choice: Choice) -> float:
    return choice.seconds
