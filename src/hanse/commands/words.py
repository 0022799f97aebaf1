"""The words that several commands take, and the console on which they print."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(highlight=False, markup=False)  # names of labels and folders are no markup

File = Annotated[Path, typer.Argument(help="An experiment, such as experiments/quickstart.yaml.")]
Folder = Annotated[Path, typer.Argument(help="A run folder, such as runs/quickstart.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change, such as rounds=5 train.optim=sgd.")
]
