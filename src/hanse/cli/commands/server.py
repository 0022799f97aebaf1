"""hanse server."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import File, Logs, Overrides, StatusPort, Trust
from hanse.experiment import loading
from hanse.lazy_imports import lazy_imports
from hanse.observability.json_logs import LogFormat

with lazy_imports():
    from hanse.cli import summary
    from hanse.deployment.server import serve

Host = Annotated[str, typer.Option(help="Where to listen; this machine alone by default.")]
Port = Annotated[int, typer.Option(help="The port at which silos join.", min=1, max=65535)]
Kit = Annotated[
    Path | None, typer.Option(help="The server's kit, from `hanse kit init`; ./kit if it is there.")
]
HERE = Path("kit")


def server(
    file: File,
    overrides: Overrides = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    kit: Kit = None,
    status_port: StatusPort = None,
    log_format: Logs = LogFormat.TEXT,
    trust: Trust = False,
) -> None:
    """Run an experiment with silos that join; the same command goes on with it after a stop."""
    experiment = loading.load(file, overrides or (), trust)
    kit = kit or (HERE if (HERE / "server.key").exists() else None)
    address = serve.Address(host, port, kit and kit.resolve())
    summary.tell(serve.serve(experiment, address, status_port, log_format))
