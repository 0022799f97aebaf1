"""`hanse check` shows what is learned, on terminals and where nothing can be underlined."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.cli.commands import check
from hanse.cli.console import Screen
from samples import Outcome

PIECES = [("Q: 1+1?\nA:", False), (" 2", True)]


class Ascii(io.StringIO):
    encoding = "ascii"


ROOM = 80


def shown(monkeypatch: pytest.MonkeyPatch, file: Any = None, **settings: Any) -> str:
    file = file or io.StringIO()
    screen = Screen(file=file, highlight=False, markup=False, width=ROOM, **settings)
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


def test_lines_of_80_columns_have_whole_words(
    hanse: Callable[..., Outcome],
    tmp_path: Path,
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = "a rather long answer that goes on " * 40
    (tmp_path / "a.jsonl").write_text(
        f'{{"prompt": "A question?", "completion": "{answer}", "hospital": "x", "age": 3}}\n' * 9
        + f'{{"prompt": "Another?", "completion": "{answer}", "hospital": "y", "age": 4}}\n' * 9
    )
    words = ["a.yaml", f"model.model_name_or_path={tiny_llama}", "model.max_length=16"]
    whole = [hanse("init", "--from", "a.jsonl"), hanse("check", *words)]
    (tmp_path / "a.yaml").unlink()
    monkeypatch.setattr(check.console, "_width", ROOM)
    monkeypatch.setenv("COLUMNS", str(ROOM))
    cut = [hanse("init", "--from", "a.jsonl"), hanse("check", *words)]
    for before, after in zip(whole, cut, strict=True):
        assert before.code == after.code == 0, after.err
        known = set(before.out.split())
        for line in after.out.splitlines():
            assert len(line) <= ROOM or len(line.split()) <= 2, "one long path may be longer"
            assert {word for word in line.split() if word.isalpha()} <= known, line
    assert "lose the end of the answer, without which the model does not learn to stop" in " ".join(
        cut[1].out.split()
    )
