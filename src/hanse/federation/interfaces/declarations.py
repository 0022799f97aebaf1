"""Declarations of parts: what a part needs of another one, and what it gives."""

from typing import Any

# What an algorithm's step may need of the aggregate, and what an aggregator may give.
MEAN = "mean"  # the tensors are the mean of all updates, by the weights that clients give
NUMBERS = "numbers"  # so are the numbers that clients report
UPDATES = "updates"  # the algorithm's `combine` is given each update
EVERYTHING = frozenset({MEAN, NUMBERS, UPDATES})


def withdraw(part: type, declaration: str, closed: Any, *methods: str) -> None:
    """Fail closed: what a base class declares of a method does not hold for one in its place."""
    if declaration not in vars(part) and any(method in vars(part) for method in methods):
        setattr(part, declaration, closed)
