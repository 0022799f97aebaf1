"""On a terminal: a few lines at its foot that change in place, below whatever is printed."""

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
from hanse.observability.progress import Step

WIDTH = 88  # columns at most
A_SECOND = 2  # how often it is drawn


@contextmanager
def drawing(heard: ProgressState, console: Console) -> Iterator[None]:
    """Draw what has been heard at the foot of the terminal until the block ends.

    What is printed meanwhile, log lines too, scrolls by above.
    """
    errors = sys.stderr
    live = Live(
        console=console,
        get_renderable=lambda: drawn(copy(heard), time.monotonic()),
        refresh_per_second=A_SECOND,
        transient=True,
        redirect_stderr=errors.isatty(),  # a file gets its lines as ever
    )
    with live:
        loggers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is errors
        ]
        for handler in loggers:
            handler.setStream(sys.stderr)
        try:
            yield
        finally:
            for handler in loggers:
                handler.setStream(errors)


def drawn(heard: ProgressState, now: float) -> RenderableType:
    """The lines as they are now."""
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    # Widths that most labels and counts fit into, so that bars keep their place.
    table.add_column(min_width=18, max_width=24, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1)
    table.add_column(min_width=12, no_wrap=True, justify="right")
    if heard.runs is not None:
        _add(table, "run", heard.runs, phrases.present(heard.runs))
    if heard.rounds is not None:
        _add(table, "round", heard.rounds, phrases.rounds(heard.rounds), heard.share)
    if heard.clients is not None:
        _add(table, "clients", heard.clients, phrases.count(heard.clients))
    if heard.work is None and heard.rounds is None:
        table.add_row("starting")
    if heard.work is not None:
        beside = phrases.count(heard.work) or phrases.seconds(now - heard.since)
        _add(table, heard.work.what, heard.work, beside)
    took = f"{phrases.seconds(now - heard.began)} so far"
    if heard.rounds is not None:
        took += f"   {phrases.left(heard, now)} left{' of this run' if heard.runs else ''}"
    detail = heard.work.detail if heard.work else ""
    said = [text for text in (detail, phrases.numbers(heard), took) if text]
    foot = Text("\n".join(said), style="dim", no_wrap=True, overflow="ellipsis")
    return Constrain(Group(table, foot), WIDTH)


def _add(table: Table, label: str, step: Step, beside: str, part: float = 0.0) -> None:
    """A row: what is done, a bar if its length is known, and how far it is.

    part: how much of the next unit is done.
    """
    bar = ProgressBar(step.total, min(step.total, step.done + part)) if step.total else ""
    table.add_row(Text(label), bar, beside)  # a label may look like markup
