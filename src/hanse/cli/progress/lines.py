"""Where there is no terminal: a plain line whenever nothing else was printed for some time."""

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
LONGEST = 600.0  # the same, while nothing goes on


@contextmanager
def beating(heard: ProgressState, silence: float = SILENCE) -> Iterator[None]:
    """Log what is being done after every silence, from a thread that long calls do not hold up.

    The first line comes at once: what was imported before has taken seconds. While nothing goes on,
    as when a server waits for days, the silence before the same line is twice as long each time.
    """
    printed = _Printed()
    over = threading.Event()

    def beat() -> None:
        said, pause = None, silence
        while not over.wait(min(0.5, silence / 4)):
            now, seen = time.monotonic(), copy(heard)
            doing = (seen.rounds, seen.clients, seen.work and (seen.work.what, seen.work.done))
            if doing != said:
                pause = silence
            if now - printed.last >= pause:
                log.info("… %s", phrases.line(seen, now))
                pause = min(LONGEST, 2 * pause) if doing == said else silence
                said = doing

    thread = threading.Thread(target=beat, daemon=True)
    logging.getLogger("hanse").addHandler(printed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        logging.getLogger("hanse").removeHandler(printed)


class _Printed(logging.Handler):
    """When the last line was logged."""

    last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self.last = time.monotonic()
