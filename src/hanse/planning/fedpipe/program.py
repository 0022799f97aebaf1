"""The best allocation by a mixed-integer program, solved by HiGHS through SciPy.

Variables, all 0 or 1: z_mo, silo m takes form o; x_mlr, its adapter of matrix l has rank r; y_l,
matrix l has an adapter anywhere. Bits and batch size are one variable each pair, which keeps the
time that is needed linear in the number of silos.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from hanse.planning.fedpipe.bounds import refuse_unfit
from hanse.planning.fedpipe.problem import Allocation, Choice, Problem, SiloPlan

LIMIT = 15.0  # seconds
SLACK = 1e-6  # of a bound, as a share of it, which covers the solver's tolerance
Term = tuple[int, float]  # a variable and its coefficient


@dataclass
class _Rows:
    """Constraints lower ≤ Σ coefficient·variable ≤ upper, gathered row by row."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)

    def add(self, terms: list[Term], lower: float, upper: float) -> None:
        """Add one constraint."""
        self.rows += [len(self.lower)] * len(terms)
        self.columns += [column for column, _ in terms]
        self.values += [value for _, value in terms]
        self.lower.append(lower)
        self.upper.append(upper)

    def constraint(self, variables: int) -> LinearConstraint:
        """All of them, over so many variables."""
        shape = len(self.lower), variables
        matrix = csr_array((self.values, (self.rows, self.columns)), shape=shape)
        return LinearConstraint(matrix, self.lower, self.upper)


@dataclass(frozen=True)
class _Variables:
    """The places of a problem's variables: y of all matrices, then z and x of each silo."""

    problem: Problem

    @property
    def starts(self) -> list[int]:
        """The first variable of each silo, and the number of all."""
        sizes = [len(s.forms) + sum(map(len, s.ranks)) for s in self.problem.silos]
        return [int(n) for n in np.cumsum([self.problem.count, *sizes])]

    def of_silo(self, number: int) -> Iterator[tuple[int, int | None, int, Choice]]:
        """A silo's variables: place, matrix or None for a form, number of the choice, choice."""
        silo, place = self.problem.silos[number], self.starts[number]
        for choice, form in enumerate(silo.forms):
            yield place + choice, None, choice, form
        place += len(silo.forms)
        for matrix, ranks in enumerate(silo.ranks):
            for choice, rank in enumerate(ranks):
                yield place + choice, matrix, choice, rank
            place += len(ranks)


def best(problem: Problem, limit: float = LIMIT) -> Allocation | None:
    """The allocation of the largest gain; None if none was found within the limit.

    limit: seconds, after which the best one found so far is taken, with its gap.
    Raises UserError if a silo's machine holds no form of training within the bounds.
    """
    refuse_unfit(problem)
    variables = _Variables(problem)
    total = variables.starts[-1]
    found = milp(
        -_gains(variables, total),
        constraints=_constraints(variables).constraint(total),
        integrality=np.ones(total),
        bounds=Bounds(0, 1),
        options={"time_limit": limit, "mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    return Allocation(_plans(variables, found.x > 0.5), float(found.mip_gap))


def _gains(variables: _Variables, total: int) -> NDArray[np.float64]:
    gains = np.zeros(total)
    for number, silo in enumerate(variables.problem.silos):
        for place, _, _, choice in variables.of_silo(number):
            gains[place] = silo.weight * choice.gain
    return gains


def _constraints(variables: _Variables) -> _Rows:
    """All bounds of the problem; memory and seconds as shares of their bounds."""
    problem, rows = variables.problem, _Rows()
    rows.add([(matrix, 1.0) for matrix in range(problem.count)], 0, problem.most)
    for number, silo in enumerate(problem.silos):
        own = list(variables.of_silo(number))
        rows.add([(place, 1.0) for place, matrix, _, _ in own if matrix is None], 1, 1)
        if adapters := [(place, 1.0) for place, matrix, _, _ in own if matrix is not None]:
            rows.add(adapters, 1, np.inf)  # a silo without any could not train
        rows.add([(place, c.memory / silo.memory) for place, _, _, c in own], 0, 1 - SLACK)
        rows.add([(place, c.seconds / problem.seconds) for place, _, _, c in own], 0, 1 - SLACK)
        for matrix in range(problem.count):
            taken = [(place, 1.0) for place, of, _, _ in own if of == matrix]
            rows.add([*taken, (matrix, -1.0)], -np.inf, 0)  # one rank, where the matrix has any
            if short := _short(problem, own, matrix):
                rows.add([*taken, *short], 0, 1)  # none in a form that does not reach it
    return rows


def _short(
    problem: Problem, own: list[tuple[int, int | None, int, Choice]], matrix: int
) -> list[Term]:
    """A silo's variables of forms in which a matrix may have no adapter."""
    forms = ((place, form) for place, of, _, form in own if of is None)
    return [(place, 1.0) for place, form in forms if not problem.reaches(form, matrix)]


def _plans(variables: _Variables, taken: NDArray[np.bool_]) -> tuple[SiloPlan, ...]:
    """The silos' plans that the values of the variables mean."""
    plans = []
    for number in range(len(variables.problem.silos)):
        form = 0
        ranks: list[int | None] = [None] * variables.problem.count
        for place, matrix, choice, _ in variables.of_silo(number):
            if taken[place] and matrix is None:
                form = choice
            elif taken[place] and matrix is not None:
                ranks[matrix] = choice
        plans.append(SiloPlan(form, tuple(ranks)))
    return tuple(plans)
