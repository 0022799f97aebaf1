"""The solution of a problem as the plan of each silo."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.planning.fedpipe import choices, program
from hanse.planning.fedpipe.choices import SENT, Means
from hanse.planning.fedpipe.heuristic import two_stage
from hanse.planning.fedpipe.importance_round import Importance
from hanse.planning.fedpipe.planned import Bounds, Plan, SiloPlan
from hanse.planning.fedpipe.problem import (
    Allocation,
    Choice,
    Problem,
    gain,
    holds,
    memory,
    seconds,
)
from hanse.planning.fedpipe.silos import Silo

SLOWEST = 1.02  # of the slowest silo's seconds now: the bound of a round if the user gives none


def solved(problem: Problem) -> tuple[Allocation, str]:
    """The better one of the program's plan and the two stages', and how it was found.

    Raises UserError if neither has an adapter at each silo.
    """
    stages, found = _fastest(problem, two_stage(problem)), program.best(problem)
    found = found and _fastest(problem, found)
    idle = [s.name for s, own in zip(problem.silos, stages.silos, strict=True) if not own.trains]
    if found is None and idle:
        raise UserError(
            f"beside the other silos' matrices {', '.join(idle)[:200]} cannot hold an adapter "
            "within the bounds; raise --round-seconds or --memory."
        )
    if found is None or (not idle and gain(problem, found.silos) < gain(problem, stages.silos)):
        return stages, "in two stages; the integer program found none that is better in time"
    share = gain(problem, stages.silos) / gain(problem, found.silos)
    text = f"the plan of the two stages gains {100 * share:.1f} % of what this one does"
    text = f"by the two stages {', '.join(idle)[:200]} would train nothing" if idle else text
    return found, f"by the integer program; {text}, gap {100 * (found.gap or 0.0):.2g} %"


def _fastest(problem: Problem, found: Allocation) -> Allocation:
    """The allocation with each silo's best form for its ranks; of equal ones the fastest.

    What a form gains by its time alone is below the solver's tolerance if the bound is generous.
    """
    plans = []
    for silo, plan in zip(problem.silos, found.silos, strict=True):
        every = (replace(plan, form=form) for form in range(len(silo.forms)))
        fitting = [own for own in every if holds(problem, silo, own)]
        plans.append(max(fitting, key=lambda own: _worth(silo.forms[own.form]), default=plan))
    return replace(found, silos=tuple(plans))


def _worth(form: Choice) -> tuple[float, float]:
    return form.gain, -form.seconds


def draft(
    experiment: Experiment,
    importance: Importance,
    silos: Sequence[Silo],
    means: Means,
    bounds: Bounds,
    remarks: Iterable[str],
) -> Plan:
    """A plan with its evidence and its bound, in which no silo is planned yet."""
    usual = {silo.name: choices.usual_seconds(silo, means) for silo in silos}
    bound = bounds.seconds or SLOWEST * max(usual.values())
    evidence = importance, means.steps, tuple(means.matrices), means.rank, usual
    return Plan(experiment, (), *evidence, bound, "", tuple(remarks))


def completed(draft: Plan, silos: Sequence[Silo], means: Means) -> tuple[Plan, float]:
    """The plan with the best one of each silo, and its gain.

    Raises UserError for a silo whose machine holds no form of training within the bounds.
    """
    problem = choices.problem(silos, means, draft.bound)
    best, solver = solved(problem)
    planned = tuple(_silo_plans(problem, best, silos, means))
    return replace(draft, silos=planned, solver=solver), gain(problem, best.silos)


def _silo_plans(
    problem: Problem, best: Allocation, silos: Sequence[Silo], means: Means
) -> Iterator[SiloPlan]:
    sizes = {matrix.name: matrix.size for matrix in means.matrices}
    for silo, options, taken in zip(silos, problem.silos, best.silos, strict=True):
        ranks = {
            matrix.name: means.ranks[place]
            for matrix, place in zip(means.matrices, taken.ranks, strict=True)
            if place is not None
        }
        yield SiloPlan(
            silo,
            choices.forms(silo, means)[taken.form],
            ranks,
            seconds(options, taken),
            memory(options, taken),
            float(sum(SENT * rank * sizes[name] for name, rank in ranks.items())),
        )
