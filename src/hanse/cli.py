"""The command line: one file in commands/ for each word after `hanse`, imported when it is said."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperGroup

from hanse.commands.words import console
from hanse.errors import UserError

WATCHED = ("init", "run", "resume", "check", "evaluate", "ladder", "server")  # with their progress
PLAIN = ("chat", "parts", "report", "compare", "doctor", "join", "kit")
PATIENCE = 3.0  # seconds of imports after which it is said that they go on


class _Commands(TyperGroup):
    """Imports a command's file, and with it what the command needs, once somebody asks for it.

    Most need torch, transformers and peft, which take seconds; `kit` needs none of them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the order of the help page."""
        return [*WATCHED, *PLAIN]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        if cmd_name not in (*WATCHED, *PLAIN):
            return None
        with _patience():
            file = import_module(f"hanse.commands.{cmd_name}")
        words: typer.Typer | None = getattr(file, "app", None)  # further words follow, as to kit
        if words is None:
            words = typer.Typer(add_completion=False)
            work = getattr(file, cmd_name)
            if cmd_name in WATCHED:
                from hanse.view.watching import watched

                work = watched(console)(work)
            words.command(cmd_name)(work)
        return typer.main.get_command(words)


@contextmanager
def _patience() -> Iterator[None]:
    """Say so if importing takes long, as it does after an installation."""
    said = "starting: torch and transformers are being imported"
    late = threading.Timer(PATIENCE, print, [said], {"file": sys.stderr})
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


app = typer.Typer(
    cls=_Commands,
    help="Federated fine-tuning of large language models.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _hanse() -> None:
    """Without a command of its own, typer makes no group."""


def main() -> None:
    """Run the command line: exit code 2 and one sentence for a mistake of the user's."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hanse").setLevel(logging.INFO)
    try:
        app(standalone_mode=False)
    except click.ClickException as error:  # a word that is no command or option
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        print("hanse:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("hanse: stopped before anything was begun.", file=sys.stderr)
        sys.exit(2)
