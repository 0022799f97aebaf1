"""The command line: run, resume, check, evaluate, parts."""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from hanse.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(file: Path, overrides: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    from hanse import experiment, simulation
    simulation.run(experiment.load(file, overrides or ()))


@app.command()
def resume(folder: Path) -> None:
    from hanse import simulation
    simulation.resume(folder)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("hanse").setLevel(logging.INFO)
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
if __name__ == "__main__":
    main()
