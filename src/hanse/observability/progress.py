"""What is being done right now, for whoever watches: a terminal's live view, or plain lines.

Long work says how far it is through Python's logging, on a logger of its own, so that nothing here
knows who listens, and nothing is said when nobody does.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

log = logging.getLogger("hanse.observability.progress")
log.setLevel(logging.WARNING)  # a view that wants to hear sets it to DEBUG
log.propagate = False  # steps are no log lines
EVERY = 0.5  # seconds between two reports of one loop

# Work that other work is part of; `clients` is followed by what they are asked for.
RUNS, ROUNDS, CLIENTS = "runs", "rounds", "clients"

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """How far a piece of work is.

    what: the work in a few words ("training silo-2", "loading smollm2-135m").
    done, total: in units of the work; total is 0 if it is not known.
    numbers: what can be said on the way (loss, tokens_per_second, bytes …).
    detail: more words, which may change while the work is the same.
    """

    what: str
    done: int = 0
    total: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    detail: str = ""


def report(what: str, done: int = 0, total: int = 0, detail: str = "", **numbers: float) -> None:
    """Report a step of some work; a handler finds it as `record.step`."""
    if watched():
        log.debug("%s", what, extra={"step": Step(what, done, total, numbers, detail)})


def track(
    items: Iterable[T],
    what: str,
    total: int,
    each: int = 1,
    numbers: Callable[[], dict[str, float]] = dict,
) -> Iterator[T]:
    """The items, with a report now and then of how much is done.

    total: in units of the work, of which one item is `each`; the last item may be less.
    numbers: asked for only when a report is due, since a loss must be waited for on its device.
    """
    due = 0.0
    for index, item in enumerate(items):
        if watched() and time.monotonic() >= due:
            report(what, index * each, total, "", **numbers())
            due = time.monotonic() + EVERY
        yield item
    if watched():
        report(what, total, total, "", **numbers())


def watched() -> bool:
    """Whether anybody listens."""
    return log.isEnabledFor(logging.DEBUG)
