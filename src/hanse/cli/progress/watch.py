"""Shows the progress of a command: in place on a terminal, in plain lines elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from hanse.cli.progress.lines import log_lines
from hanse.cli.progress.state import ProgressState
from hanse.cli.progress.terminal import live_view
from hanse.observability import progress


@contextmanager
def watched(console: Console) -> Iterator[None]:
    """Show the progress while the block lasts.

    console: where the command prints.
    """
    now = time.monotonic()
    state = ProgressState(now, now)
    steps = _Steps(state)
    # With FORCE_COLOR a file counts as interactive, but nothing can be redrawn in it.
    terminal = console.is_interactive and console.file.isatty()
    progress.log.addHandler(steps)
    progress.log.setLevel(logging.DEBUG)
    try:
        with live_view(state, console) if terminal else log_lines(state):
            yield
    finally:
        progress.log.setLevel(logging.WARNING)
        progress.log.removeHandler(steps)


class _Steps(logging.Handler):
    """Puts the steps that `progress` reports into the state."""

    def __init__(self, state: ProgressState) -> None:
        super().__init__()
        self.state = state

    def emit(self, record: logging.LogRecord) -> None:
        self.state.update(record.step, time.monotonic())  # type: ignore[attr-defined]
