"""`hanse check` shows what is learned, on terminals and where nothing can be underlined."""

import io
from typing import Any

import pytest

from hanse.cli.commands import check
from hanse.cli.console import Screen

PIECES = [("Q: 1+1?\nA:", False), (" 2", True)]


class Ascii(io.StringIO):
    encoding = "ascii"


def shown(monkeypatch: pytest.MonkeyPatch, file: Any = None, **settings: Any) -> str:
    file = file or io.StringIO()
    screen = Screen(file=file, highlight=False, markup=False, width=80, **settings)
    monkeypatch.setattr(check, "console", screen)
    check._show_example(PIECES)
    text: str = file.getvalue()
    return text


def test_a_pipe_has_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch)
    assert text == (
        "\nOne training example; what is learned stands between ⟦ and ⟧:\nQ: 1+1?\nA:⟦ 2⟧\n"
    )


def test_marks_need_no_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Ascii())
    assert "between [[ and ]]" in text and "A:[[ 2]]" in text


@pytest.mark.parametrize("colors", [True, False])
def test_a_terminal_underlines(monkeypatch: pytest.MonkeyPatch, colors: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown(monkeypatch, force_terminal=True, no_color=not colors)
    assert "what is learned is underlined" in text and "⟦" not in text
    assert ("\x1b[4;32m 2" in text) is colors and "\x1b[4" in text


def test_a_plain_terminal_has_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "⟦ 2⟧" in shown(monkeypatch, force_terminal=True)
