"""Shows what a command is doing, as far as the place where it is shown allows."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from hanse.cli.progress.lines import beating
from hanse.cli.progress.state import ProgressState
from hanse.cli.progress.terminal import drawing
from hanse.observability import progress


@contextmanager
def watched(console: Console) -> Iterator[None]:
    """Show what is being done while the block lasts: in place on a terminal, else in plain lines.

    console: where the command prints.
    """
    now = time.monotonic()
    heard = ProgressState(now, now)
    steps = _Steps(heard)
    # A terminal may be feigned to have colours (FORCE_COLOR), which makes nothing of it move.
    terminal = console.is_interactive and console.file.isatty()
    progress.log.addHandler(steps)
    progress.log.setLevel(logging.DEBUG)
    try:
        with drawing(heard, console) if terminal else beating(heard):
            yield
    finally:
        progress.log.setLevel(logging.WARNING)
        progress.log.removeHandler(steps)


class _Steps(logging.Handler):
    """Hears what `progress` reports."""

    def __init__(self, heard: ProgressState) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.hear(record.step, time.monotonic())  # type: ignore[attr-defined]
