"""The command line. Each command has a file in cli/commands/, imported when it is called."""

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
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.cli.progress import watch

# Commands that show their progress, and the others.
WATCHED = (
    "init",
    "run",
    "resume",
    "check",
    "evaluate",
    "export",
    "baselines",
    "emulator",
    "profile",
    "plan",
    "server",
)
PLAIN = (
    "convert",
    "chat",
    "parts",
    "report",
    "compare",
    "trace",
    "fit-codec",
    "doctor",
    "join",
    "kit",
    "ownership",
)
LONGEST = 400  # characters of a file's name in a message
NOT_BEGUN = "stopped before anything was begun."


class _Commands(TyperGroup):
    """Imports the file of a command when the command is called.

    The files import lazily whatever needs torch, transformers or PEFT, so that a wrong option or a
    wrong setting is reported at once.
    """

    _summaries: Mapping[str, click.Command] = MappingProxyType({})  # for the help page

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the order of the help page."""
        return [*WATCHED, *PLAIN]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page, which imports no command."""
        self._summaries = {
            name: click.Command(name, help=_summary(name)) for name in [*WATCHED, *PLAIN]
        }
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and report Ctrl-C if the command itself does not."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as by:  # typer would print nothing
            raise StoppedError(
                f"stopped before `hanse {ctx.invoked_subcommand}` was done; the files that it has "
                "written are whole, and the same command begins again.",
                by,
            ) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command with a name; None if there is none."""
        if cmd_name not in (*WATCHED, *PLAIN):
            return None
        if cmd_name in self._summaries:
            return self._summaries[cmd_name]
        file = import_module(f"hanse.cli.commands.{_module(cmd_name)}")
        group: typer.Typer | None = getattr(
            file, "app", None
        )  # kit and ownership have commands of their own
        if group is None:
            group = typer.Typer(add_completion=False)
            function = getattr(file, _module(cmd_name))
            if cmd_name in WATCHED:
                function = watch.watched(console)(function)
            group.command(cmd_name)(function)
        return typer.main.get_command(group)


def _module(name: str) -> str:
    """The name of the file and the function of a command."""
    return name.replace("-", "_")


def _summary(name: str) -> str:
    """The text about a command on the help page: the docstring in its file, or its app's help."""
    name = _module(name)
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
    """Typer makes a group only of an app with a callback."""


def main() -> None:
    """Run the command line; a mistake of the user is one sentence and exit code 2."""
    _prepare()
    code = _code()
    if code:
        sys.exit(code)


def _prepare() -> None:
    """Set up the terminal's width, standard output, and the log."""
    columns = os.environ.get("COLUMNS", str(USUAL))
    if not columns.isdecimal() or int(columns) < LEAST:
        del os.environ["COLUMNS"]
    guard()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hanse").setLevel(logging.INFO)


def _code() -> int:
    """Run the command, print its error if it has one, and return the exit code."""
    try:
        with terminable():
            result = app(standalone_mode=False)
            sys.stdout.flush()
    except click.ClickException as error:  # an unknown command or option
        error.show()
        return error.exit_code
    except UserError as error:
        return _printed(error)
    except (KeyboardInterrupt, click.Abort) as by:
        return _printed(StoppedError(NOT_BEGUN, by))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        name = cleaned(os.fsdecode(error.filename), LONGEST)
        return _printed(UserError(f"{name} cannot be used ({error.strerror}); mend that."))
    if result == StoppedError().code:  # Ctrl-C while typer parsed the command line
        return _printed(StoppedError(NOT_BEGUN))
    return result if isinstance(result, int) else 0


def _printed(error: UserError) -> int:
    """Print an error, unless it has no text, and return its exit code."""
    if str(error):
        print("hanse:", error, file=sys.stderr)
    return error.code
