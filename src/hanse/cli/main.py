"""The command line: one file in cli/commands/ for each word after `hanse`, imported when needed."""

import ast
import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import typer
from typer.core import TyperGroup

from hanse.cli.console import LEAST, USUAL
from hanse.cli.options import console
from hanse.cli.standard_output import guard
from hanse.errors import StoppedError, UserError, cleaned, terminable

WATCHED = (
    "init",
    "run",
    "resume",
    "check",
    "evaluate",
    "baselines",
    "server",
)  # with their progress
PLAIN = ("chat", "parts", "report", "compare", "doctor", "join", "kit")
NAMED = 400  # characters of a file's name in a sentence
UNBEGUN = "stopped before anything was begun."


class _Commands(TyperGroup):
    """Imports a command's file when the command is called.

    The files take what needs torch, transformers or PEFT by lazy imports: a wrong option or a wrong
    setting is reported before any of them is there.
    """

    _named: Mapping[str, click.Command] = MappingProxyType({})  # commands of the help page

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the order of the help page."""
        return [*WATCHED, *PLAIN]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help page, for which no command is imported."""
        self._named = {
            name: click.Command(name, help=_summary(name)) for name in [*WATCHED, *PLAIN]
        }
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; one that is stopped, and has not said so itself, says it here."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as by:  # typer would end without a word
            raise StoppedError(
                f"stopped before `hanse {ctx.invoked_subcommand}` was done; the files that it has "
                "written are whole, and the same command begins again.",
                by,
            ) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        if cmd_name not in (*WATCHED, *PLAIN):
            return None
        if cmd_name in self._named:
            return self._named[cmd_name]
        file = import_module(f"hanse.cli.commands.{cmd_name}")
        words: typer.Typer | None = getattr(file, "app", None)  # further words follow, as to kit
        if words is None:
            words = typer.Typer(add_completion=False)
            work = getattr(file, cmd_name)
            if cmd_name in WATCHED:
                from hanse.cli.progress.watch import watched

                work = watched(console)(work)
            words.command(cmd_name)(work)
        return typer.main.get_command(words)


def _summary(name: str) -> str:
    """What a command says of itself, read from its file: the docstring, or the help of its app."""
    file = Path(__file__).parent / "commands" / f"{name}.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.keyword) and node.arg == "help":
            return str(ast.literal_eval(node.value))
    raise LookupError(name)


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
    """Run the command line: a mistake of the user's is one sentence and exit code 2."""
    _prepare()
    code = _code()
    if code:
        sys.exit(code)


def _prepare() -> None:
    """Be ready for a terminal that has no width, or cannot write all letters."""
    columns = os.environ.get("COLUMNS", str(USUAL))
    if not columns.isdecimal() or int(columns) < LEAST:
        del os.environ["COLUMNS"]
    guard()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hanse").setLevel(logging.INFO)


def _code() -> int:
    """The exit code, when a command has ended and said how."""
    try:
        with terminable():
            ended = app(standalone_mode=False)
            sys.stdout.flush()
    except click.ClickException as error:  # a word that is no command or option
        error.show()
        return error.exit_code
    except UserError as error:
        return _said(error)
    except (KeyboardInterrupt, click.Abort) as by:
        return _said(StoppedError(UNBEGUN, by))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        name = cleaned(os.fsdecode(error.filename), NAMED)
        return _said(UserError(f"{name} cannot be used ({error.strerror}); mend that."))
    if ended == StoppedError().code:  # by Ctrl-C, while typer read the words
        return _said(StoppedError(UNBEGUN))
    return ended if isinstance(ended, int) else 0


def _said(error: UserError) -> int:
    """The exit code of an error, which is said unless it has no words."""
    if str(error):
        print("hanse:", error, file=sys.stderr)
    return error.code
