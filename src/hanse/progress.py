"""What is being done right now, for whoever watches: a terminal's live view, or plain lines.

Long work says how far it is through Python's logging, on a logger of its own, so that nothing here
knows who listens, and nothing is said when nobody does.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

log = logging.getLogger("hanse.progress")
log.setLevel(logging.WARNING)  # a view that wants to hear sets it to DEBUG
EVERY = 0.2  # seconds between two reports of one loop

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """How far a piece of work is.

    what: the work in a few words ("training silo-2", "loading smollm2-135m").
    done, total: in units of the work; total is 0 if it is not known.
    numbers: what can be said on the way (loss, tokens_per_second, bytes …).
    """

    what: str
    done: int = 0
    total: int = 0
    numbers: dict[str, float] = field(default_factory=dict)


def say(what: str, done: int = 0, total: int = 0, **numbers: float) -> None:
    """Report a step of some work; a handler finds it as `record.step`."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s", what, extra={"step": Step(what, done, total, numbers)})


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a report now and then of how many of them are done."""
    due = 0.0
    for done, item in enumerate(items):
        if (now := time.monotonic()) >= due:
            say(what, done, total)
            due = now + EVERY
        yield item
    say(what, total, total)
