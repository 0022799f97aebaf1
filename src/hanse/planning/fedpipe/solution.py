"""The solution of a problem as the plan of each silo."""

from collections.abc import Iterator, Mapping, Sequence

from hanse.planning.fedpipe import choices, program
from hanse.planning.fedpipe.choices import SENT, Means
from hanse.planning.fedpipe.heuristic import two_stage
from hanse.planning.fedpipe.planned import SiloPlan
from hanse.planning.fedpipe.problem import Allocation, Problem, gain, memory, seconds
from hanse.planning.fedpipe.silos import Silo


def solved(problem: Problem) -> tuple[Allocation, str]:
    """The better one of the program's plan and the two stages', and how it was found."""
    stages = two_stage(problem)
    found = program.best(problem)
    if found is None or gain(problem, found.silos) < gain(problem, stages.silos):
        return stages, "in two stages; the integer program found none that is better in time"
    share = gain(problem, stages.silos) / gain(problem, found.silos)
    text = f"by the integer program; in two stages the gain is {100 * share:.1f} % of its"
    return found, f"{text}, gap {100 * (found.gap or 0.0):.2g} %"


def silo_plans(
    problem: Problem,
    best: Allocation,
    silos: Sequence[Silo],
    means: Means,
    usual: Mapping[str, float],
) -> Iterator[SiloPlan]:
    """The plan of each silo. usual: seconds of a round with its own settings, by name."""
    for silo, options, taken in zip(silos, problem.silos, best.silos, strict=True):
        ranks = {
            matrix.name: means.ranks[place]
            for matrix, place in zip(means.matrices, taken.ranks, strict=True)
            if place is not None
        }
        sizes = {matrix.name: matrix.size for matrix in means.matrices}
        yield SiloPlan(
            silo,
            choices.forms(silo, means)[taken.form],
            ranks,
            seconds(options, taken),
            usual[silo.name],
            memory(options, taken),
            float(sum(SENT * rank * sizes[name] for name, rank in ranks.items())),
        )
