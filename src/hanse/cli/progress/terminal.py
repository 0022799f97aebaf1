"""The view on a terminal: a few lines at its foot, redrawn in place below what is printed."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hanse.cli.progress import phrases
from hanse.cli.progress.state import ProgressState
from hanse.observability import step_text
from hanse.observability.steps import ClientReplies, Job, Rounds, Runs

WIDTH = 88  # columns at most
A_SECOND = 2  # redraws in a second


@contextmanager
def live_view(state: ProgressState, console: Console) -> Iterator[None]:
    """Draw the state at the foot of the terminal until the block ends.

    Log lines and whatever else is printed meanwhile scroll by above.
    """
    errors = sys.stderr
    live = Live(
        console=console,
        get_renderable=lambda: render(copy(state), time.monotonic()),
        refresh_per_second=A_SECOND,
        transient=True,
        redirect_stderr=errors.isatty(),  # a file gets its lines directly
    )
    with live:
        handlers = [
            handler
            for logger in (logging.getLogger(), logging.getLogger("hanse"))
            for handler in logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is errors
        ]
        for handler in handlers:
            handler.setStream(sys.stderr)
        try:
            yield
        finally:
            for handler in handlers:
                handler.setStream(errors)


def render(state: ProgressState, now: float) -> RenderableType:
    """The lines as they are now."""
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    # Widths that most labels and counts fit into keep the bars in their place.
    table.add_column(min_width=18, max_width=24, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1)
    table.add_column(min_width=12, no_wrap=True, justify="right")
    if state.runs is not None:
        _add_row(table, "run", state.runs, phrases.present(state.runs))
    if state.rounds is not None:
        _add_row(table, "round", state.rounds, phrases.rounds(state.rounds), state.share)
    if state.clients is not None:
        _add_row(table, "clients", state.clients, phrases.count(state.clients))
    if state.job is None and state.rounds is None:
        table.add_row("starting")
    if state.job is not None:
        number = phrases.count(state.job) or phrases.seconds(now - state.since)
        _add_row(table, step_text.title(state.job), state.job, number)
    return Constrain(Group(table, _foot(state, now)), WIDTH)


def _foot(state: ProgressState, now: float) -> Text:
    """The lines below the bars: details, numbers, and the time."""
    spent = f"{phrases.seconds(now - state.began)} so far"
    if state.rounds is not None:
        spent += f"   {phrases.left(state, now)} left{' of this run' if state.runs else ''}"
    detail = step_text.detail(state.job) if state.job else ""
    lines = [text for text in (detail, phrases.numbers(state), spent) if text]
    return Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")


def _add_row(
    table: Table,
    label: str,
    step: Runs | Rounds | ClientReplies | Job,
    number: str,
    part: float = 0.0,
) -> None:
    """Add a label, a bar if the step's total is known, and a number.

    part: the share of the next unit that is done.
    """
    bar = ProgressBar(step.total, min(step.total, step.done + part)) if step.total else ""
    table.add_row(Text(label), bar, number)  # a label may look like markup
