"""Arguments and options of several commands, and the console on which they print."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.console import Screen
from hanse.observability.json_logs import LogFormat

console = Screen(highlight=False, markup=False)  # labels and folders may look like markup

File = Annotated[Path, typer.Argument(help="An experiment, such as experiments/quickstart.yaml.")]
Folder = Annotated[Path, typer.Argument(help="A run folder, such as runs/quickstart.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change, such as rounds=5 train.optim=sgd.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the Python files that it names, whoever wrote them.")
]
StatusPort = Annotated[
    int | None,
    typer.Option(help="The port on this machine for /healthz and /metrics.", min=1, max=65535),
]
Logs = Annotated[LogFormat, typer.Option("--log-format", help="Log lines as text, or as JSON.")]
