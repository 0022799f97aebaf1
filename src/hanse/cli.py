"""The command line: one file in commands/ for each word after `hanse`."""

import logging
import sys
from collections.abc import Callable

import click
import typer

from hanse.commands import kit
from hanse.commands.chat import chat
from hanse.commands.check import check
from hanse.commands.compare import compare
from hanse.commands.doctor import doctor
from hanse.commands.evaluate import evaluate
from hanse.commands.init import init
from hanse.commands.join import join
from hanse.commands.ladder import ladder
from hanse.commands.parts import parts
from hanse.commands.report import report
from hanse.commands.resume import resume
from hanse.commands.run import run
from hanse.commands.server import server
from hanse.commands.words import console
from hanse.errors import UserError
from hanse.view.watching import watched

app = typer.Typer(
    help="Federated fine-tuning of large language models.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
long: tuple[Callable[..., None], ...] = (init, run, resume, check, evaluate, ladder, server)
short: tuple[Callable[..., None], ...] = (chat, parts, report, compare, doctor, join)
for command in (*map(watched(console), long), *short):
    app.command()(command)
app.add_typer(kit.app, name="kit")


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
