"""hanse join."""

from pathlib import Path
from typing import Annotated

import typer

from hanse import joining
from hanse.commands.words import Logs, StatusPort
from hanse.logs import LogFormat
from hanse.silo import settings

SiloFile = Annotated[Path, typer.Argument(help="A silo's settings, such as silo.yaml.")]


def join(file: SiloFile, status_port: StatusPort = None, log_format: Logs = LogFormat.TEXT) -> None:
    """Take part in a server's runs with this machine's data, until stopped."""
    joining.join(settings.load(file), status_port, log_format)
