"""The console of the commands: nothing that is shown can forge what stands above it."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from hanse.cli.console import Screen
from hanse.cli.progress.state import ProgressState
from hanse.cli.progress.terminal import render
from hanse.observability.steps import Activity, SiloActivity, SiloState, WaitingForSilos, Work

EVIL = "a\x1b[1A\x1b[2Kb\rc\x9b2J\u202ed\x07 \ud800"


def _shown(what: object, terminal: bool) -> str:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=terminal, color_system=None, width=200)
    screen.print(what, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown_has_no_control_characters(terminal: bool) -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    silos = (SiloActivity(EVIL, SiloState.IDLE),)
    jobs = (Work(Activity.READING_FILE, EVIL), WaitingForSilos(silos, 1))
    views = [render(ProgressState(0.0, 0.0, job=job), 1.0) for job in jobs]
    for what in (EVIL, Text(EVIL), table, *views):
        shown = _shown(what, terminal)
        assert not {*shown} & {"\x1b", "\x9b", "\r", "\x07", "\u202e", "\ud800"}
        assert "\\x1b[1A" in shown or "\\x9b2J" in shown or "…" in shown
    assert _shown("one\n\ttwo", terminal).startswith("one\n")


def test_its_own_codes_stay() -> None:
    file = io.StringIO()
    Screen(file=file, force_terminal=True, color_system="truecolor").print("a", style="bold")
    assert file.getvalue() == "\x1b[1ma\x1b[0m\n"


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 80), ("19", 80), ("20", 20)])
def test_a_width_that_nothing_fits_into_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert Screen(file=io.StringIO()).width == width
