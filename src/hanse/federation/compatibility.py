"""The check that a method's parts fit together, before any client is asked."""

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
    """Raise UserError for parts that do not fit together; it names a part and a way out."""
    _check_aggregator(algorithm, aggregator)
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


def _check_aggregator(algorithm: Algorithm, aggregator: Aggregator) -> None:
    """Raise UserError unless the aggregator gives what the algorithm needs."""
    name, rule = type(algorithm).__name__, type(aggregator).__name__
    needed = {*algorithm.needs, *([UPDATES] if algorithm.combines else [])}
    needed |= {NUMBERS} if algorithm.numbers else set()
    given = aggregator.gives - ({UPDATES} if aggregator.sums_only else set())
    missing = " and ".join(words for need, words in WORDS.items() if need in needed - given)
    if not missing:
        return
    other = "another algorithm"
    if algorithm.needs == EVERYTHING:
        other = f"declare what {name} needs, if it is less"
    reason = f"{name} needs {missing}, which {rule} does not give"
    if aggregator.sums_only:
        reason = f"{rule} sees only sums, but {name} needs {missing}"
    raise UserError(f"{reason}; choose the aggregator mean, or {other}.")
