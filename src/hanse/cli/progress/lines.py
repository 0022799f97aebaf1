"""The view without a terminal: a plain line whenever nothing else was printed for some time."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from hanse.cli.progress import phrases
from hanse.cli.progress.state import ProgressState

log = logging.getLogger(__name__)

SILENCE = 8.0  # seconds without a line before one is due
LONGEST = 600.0  # the same, while nothing changes


@contextmanager
def log_lines(state: ProgressState, silence: float = SILENCE) -> Iterator[None]:
    """Log the state after every silence, from a thread that long calls do not hold up.

    While nothing changes, as when a server waits for days, the silence before the same line is
    twice as long each time.
    """
    printed = _LastPrinted()
    stop = threading.Event()

    def log_until_stopped() -> None:
        logged, pause = None, silence
        while not stop.wait(min(0.5, silence / 4)):
            now, snapshot = time.monotonic(), copy(state)
            current = _place(snapshot)
            if current != logged:
                pause = silence
            if now - printed.time >= pause:
                log.info("… %s", phrases.line(snapshot, now), extra={"step": snapshot.job})
                pause = min(LONGEST, 2 * pause) if current == logged else silence
                logged = current

    thread = threading.Thread(target=log_until_stopped, daemon=True)
    logging.getLogger("hanse").addHandler(printed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        logging.getLogger("hanse").removeHandler(printed)


def _place(state: ProgressState) -> tuple[object, ...]:
    """The progress of the command as a value that is equal while nothing changes."""
    job = state.job
    return state.rounds, state.clients, job and (job.identity, job.done)


class _LastPrinted(logging.Handler):
    """Keeps the time of the last logged line; 0 lets the first line come at once."""

    time = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self.time = time.monotonic()
