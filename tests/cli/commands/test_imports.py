"""Which words of the command line import what takes seconds."""

import subprocess
import sys

import pytest

SLOW = {"torch", "transformers", "peft"}
LOOK = """
import sys
from hanse.cli.main import main

try:
    main()
finally:
    print("|", *sys.modules)
"""


def imported(*words: str) -> set[str]:
    """The modules that a command has imported at its end."""
    done = subprocess.run([sys.executable, "-c", LOOK, *words], capture_output=True, text=True)
    return set(done.stdout.rpartition("|")[2].split())


@pytest.mark.parametrize("words", [["--help"], [], ["kit", "--help"], ["nonsense"]])
def test_words_that_need_no_model_import_none(words: list[str]) -> None:
    found = imported(*words)
    assert "hanse.cli.main" in found
    assert not SLOW & found


def test_a_command_is_imported_when_it_is_said() -> None:
    assert imported("run", "--help") >= SLOW
