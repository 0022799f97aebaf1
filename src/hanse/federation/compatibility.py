"""Which parts go together, said before any client is asked."""

from collections.abc import Sequence

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import EVERYTHING, MEAN, NUMBERS, UPDATES
from hanse.federation.interfaces.transform import Transform

WORDS = {
    UPDATES: "each client's update",
    MEAN: "the mean of all updates by their weights",
    NUMBERS: "the means of the numbers that clients report",
}


def check(algorithm: Algorithm, upload: Sequence[Transform], aggregator: Aggregator) -> None:
    """Refuse a combination that cannot work: raise UserError with the offender and a way out."""
    _check_rule(algorithm, aggregator)
    rule = type(aggregator).__name__
    for transform in upload:
        name = type(transform).__name__
        if aggregator.sums_only and not transform.linear:
            raise UserError(
                f"{rule} sees only sums, but {name} needs each client's update; choose the "
                "aggregator mean, or another transform."
            )
        if algorithm.payload not in transform.payloads:
            raise UserError(
                f"{name} takes {' or '.join(transform.payloads)}, but "
                f"{type(algorithm).__name__} sends {algorithm.payload}; leave the transform out."
            )


def _check_rule(algorithm: Algorithm, aggregator: Aggregator) -> None:
    """Whether the aggregator gives what the algorithm needs of it."""
    name, rule = type(algorithm).__name__, type(aggregator).__name__
    needed = {*algorithm.needs, *([UPDATES] if algorithm.combines else [])}
    needed |= {NUMBERS} if algorithm.numbers else set()
    given = aggregator.gives - ({UPDATES} if aggregator.sums_only else set())
    lacking = [words for what, words in WORDS.items() if what in needed - given]
    if not lacking:
        return
    other = "another algorithm"
    if algorithm.needs == EVERYTHING:
        other = f"declare what {name} needs, if it is less"
    lacks = " and ".join(lacking)
    why = f"{name} needs {lacks}, which {rule} does not give"
    if aggregator.sums_only:
        why = f"{rule} sees only sums, but {name} needs {lacks}"
    raise UserError(f"{why}; choose the aggregator mean, or {other}.")
