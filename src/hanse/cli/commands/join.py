"""hanse join."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import Logs, StatusPort
from hanse.deployment.silo import settings
from hanse.lazy_imports import lazy_imports
from hanse.observability.json_logs import LogFormat

with lazy_imports():
    from hanse.deployment.silo import join as joining

SiloFile = Annotated[Path, typer.Argument(help="A silo's settings, such as silo.yaml.")]


def join(file: SiloFile, status_port: StatusPort = None, log_format: Logs = LogFormat.TEXT) -> None:
    """Take part in a server's runs with this machine's data, until stopped."""
    silo = settings.load(file)
    joining.join(silo, status_port, log_format)
