"""hanse convert."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import console
from hanse.errors import cleaned
from hanse.planning.conversion import convert as conversion
from hanse.planning.conversion.page import by_reason


def convert(
    config: Annotated[
        Path,
        typer.Argument(
            help="A config of LLaMA-Factory, axolotl, TRL, FlowerTune or FederatedScope."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write; by default NAME-hanse.yaml."),
    ] = None,
) -> None:
    """Write the experiment that another tool's config describes."""
    done = conversion.convert(config, out)
    _tell("found", f"a config of {done.tool} in {config}")
    _tell("carried", f"{len(done.draft.settings)} settings, with their keys as comments")
    heading = "left"
    for reason, keys in by_reason(done.draft).items():
        _tell(heading, f"{keys}: {reason}")
        heading = ""
    file = shlex.quote(str(done.file))
    _tell("written", str(done.file))
    _tell("next", f"hanse check {file}")


def _tell(what: str, words: str) -> None:
    """Print one line, without control characters in names of keys and files."""
    console.tell(f"{what:<8} {cleaned(words, None)}", indent=9)
