"""Declarations of parts: what a part needs of another one, and what it gives."""

from typing import Any

# An algorithm's step may need these of the aggregate, and an aggregator may give them.
MEAN = "mean"  # the tensors are the weighted mean of all updates
NUMBERS = "numbers"  # the numbers are the weighted means of those that clients report
UPDATES = "updates"  # the algorithm's `combine` gets each update
EVERYTHING = frozenset({MEAN, NUMBERS, UPDATES})


def withdraw(part: type, declaration: str, closed: Any, *methods: str) -> None:
    """Close a declaration in a class that overrides one of these methods without declaring it."""
    if declaration not in vars(part) and any(method in vars(part) for method in methods):
        setattr(part, declaration, closed)
