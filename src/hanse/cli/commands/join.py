"""hanse join."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import Logs, StatusPort
from hanse.deployment.silo import join as joining
from hanse.deployment.silo import settings
from hanse.observability.json_logs import LogFormat

SiloFile = Annotated[Path, typer.Argument(help="A silo's settings, such as silo.yaml.")]


def join(file: SiloFile, status_port: StatusPort = None, log_format: Logs = LogFormat.TEXT) -> None:
    """Take part in a server's runs with this machine's data, until stopped."""
    joining.join(settings.load(file), status_port, log_format)
