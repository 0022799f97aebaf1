"""What a person sees: on a terminal, in a file, and when something goes wrong."""

import io
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from hanse.cli.progress import lines, terminal
from hanse.cli.progress.state import ProgressState
from hanse.cli.progress.terminal import render
from hanse.cli.progress.watch import watched
from hanse.observability import progress
from hanse.observability.progress import report
from hanse.observability.steps import (
    Activity,
    ClientReplies,
    FinishedRound,
    Rounds,
    SiloActivity,
    SiloState,
    Step,
    Training,
    WaitingForSilos,
    Work,
)

log = logging.getLogger("hanse.something")
STEPS: list[Step] = [
    Rounds(0, 6),
    Rounds(0, 6, FinishedRound(10.0, 0.0, 0.0)),
    ClientReplies("train", 0, 4, 4e6),
    ClientReplies("train", 1, 4, 4e6, 1e6),
    Training(("silo-with-quite-a-long-name",), 12, 29, 0.61, 99.0),
]
LOADING = Work(Activity.LOADING_MODEL, "smollm2")


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as the command line prints it."""
    stream = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    logger = logging.getLogger("hanse")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield stream
    logger.setLevel(before)


def _drawn(width: int, state: ProgressState) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=True)
    console.print(render(state, 30.0))
    return console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ").splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_everything_is_on_the_screen(width: int) -> None:
    state = ProgressState(0.0, 0.0)
    for step in STEPS:
        state.update(step, 20.0)
    shown = _drawn(width, state)
    assert len(shown) == 5 and max(map(len, shown)) <= min(width, terminal.WIDTH)
    for line, parts in zip(
        shown,
        [
            ("round", "1 of 6"),
            ("clients", "1 of 4"),
            ("training silo-with-", "12 of 29"),
            ("loss 0.61", "99 tokens/s", "4 MB down", "1 MB up"),
            ("30 s so far", "about", "left"),
        ],
        strict=True,
    ):
        assert all(part in line for part in parts)


def test_what_has_no_length_has_no_bar() -> None:
    state = ProgressState(0.0, 0.0)
    assert "starting" in _drawn(60, state)[0]
    state.update(Work(Activity.LOADING_MODEL, "[/model]"), 10.0)
    [work, took] = _drawn(60, state)
    assert work.split() == ["loading", "[/model]", "20", "s"]
    assert "left" not in took


def test_a_terminal_is_drawn_on_and_cleared(log_lines: io.StringIO) -> None:
    screen = Screen()
    console = Console(file=screen, width=80, color_system=None, force_terminal=True)
    with watched(console):
        for step in STEPS:
            report(step)
        log.info("a line")
        console.print("a result")
        time.sleep(1.5 / terminal.A_SECOND)
    shown = screen.getvalue()
    assert "training silo" in shown and "a result" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "the last lines are erased"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is back"
    assert "a line" in log_lines.getvalue()


def test_log_lines_scroll_by_above_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    handler = logging.StreamHandler(screen)
    monkeypatch.setattr(terminal.sys, "stderr", screen)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    console = Console(file=screen, width=80, color_system=None, force_terminal=True)
    with watched(console):
        logging.getLogger("hanse.loud").warning("a line\n")
        assert handler.stream is not screen
    assert handler.stream is screen
    assert "a line\n" in screen.getvalue()


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"FORCE_COLOR": "1"}], ids=["dumb", "no terminal"]
)
def test_no_control_codes_where_they_mean_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, log_lines: io.StringIO
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = Screen() if "TERM" in environment else io.StringIO()
    with watched(Console(file=file, width=80, force_terminal=True)):
        report(LOADING)
    assert file.getvalue() == ""


def test_a_silence_is_broken_while_a_call_lasts(log_lines: io.StringIO) -> None:
    state = ProgressState(time.monotonic(), time.monotonic())
    state.update(LOADING, time.monotonic())
    with lines.log_lines(state, silence=0.08):
        time.sleep(0.4)  # like a call into C
    told = log_lines.getvalue().splitlines()
    assert 2 <= len(told) <= 5
    assert all(line.startswith("… loading smollm2 (0") for line in told)


def test_no_line_where_others_are_printed(log_lines: io.StringIO) -> None:
    state = ProgressState(time.monotonic(), time.monotonic())
    with lines.log_lines(state, silence=2.0):
        for _ in range(4):
            log.info("a line")
            time.sleep(0.3)
    assert log_lines.getvalue().splitlines() == 4 * ["a line"]


def test_a_server_that_waits_for_days_says_so_more_and_more_rarely(
    log_lines: io.StringIO,
) -> None:
    state = ProgressState(time.monotonic(), time.monotonic())
    state.update(WaitingForSilos((SiloActivity("b", SiloState.NEVER_SEEN),), 2), time.monotonic())
    with lines.log_lines(state, silence=0.04):
        time.sleep(1.2)  # 30 silences; lines after 1, 2, 4, 8 … of them
        waited = len(log_lines.getvalue().splitlines())
        state.update(Training(("b",), 1, 9), time.monotonic())
        time.sleep(0.4)
    assert 3 <= waited <= 6
    assert "training b" in log_lines.getvalue(), "news is told after the first silence"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("live", [True, False])
def test_nothing_is_left_behind(
    error: type[BaseException], live: bool, log_lines: io.StringIO
) -> None:
    before = threading.active_count(), progress.log.handlers[:]
    file = Screen() if live else io.StringIO()
    with pytest.raises(error), watched(Console(file=file, width=80, force_terminal=live)):
        report(LOADING)
        raise error
    time.sleep(1.5 / terminal.A_SECOND)
    assert (threading.active_count(), progress.log.handlers) == before
    assert not progress.watched()
