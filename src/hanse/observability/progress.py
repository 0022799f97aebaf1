"""Reports of what is being done right now, for whoever watches: a live view, or plain lines.

Long work reports its steps through a logger of its own. Nothing here knows who listens, and a step
is not even made when nobody does.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from hanse.observability.steps import Step, Training, Work

log = logging.getLogger("hanse.observability.progress")
log.setLevel(logging.WARNING)  # a view that listens sets it to DEBUG
log.propagate = False  # steps are no log lines
EVERY = 0.5  # seconds between two reports of one loop

T = TypeVar("T")
Counted = TypeVar("Counted", Work, Training)


def report(step: Step) -> None:
    """Report a step of some work; a handler finds it as `record.step`."""
    if watched():
        log.debug("step", extra={"step": step})


def track(
    items: Iterable[T],
    step: Counted,
    each: int = 1,
    measure: Callable[[Counted], Counted] | None = None,
) -> Iterator[T]:
    """The items, with a report now and then of how many of the step's total are done.

    each: units of the total that one item is; the last item may be less.
    measure: adds numbers to a step that is reported; reading a loss waits for its device.
    """
    due = 0.0
    for index, item in enumerate(items):
        if watched() and time.monotonic() >= due:
            _report_done(step, index * each, measure)
            due = time.monotonic() + EVERY
        yield item
    if watched():
        _report_done(step, step.total, measure)


def _report_done(step: Counted, done: int, measure: Callable[[Counted], Counted] | None) -> None:
    step = replace(step, done=done)
    report(measure(step) if measure else step)


def watched() -> bool:
    """True while somebody listens."""
    return log.isEnabledFor(logging.DEBUG)
