"""hanse run."""

from hanse.cli.options import File, Overrides, Trust
from hanse.experiment import loading
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.cli import summary
    from hanse.simulation import run as simulation


def run(file: File, overrides: Overrides = None, trust: Trust = False) -> None:
    """Run an experiment, all clients on this machine; leave an adapter and a report."""
    experiment = loading.load(file, overrides or (), trust)
    summary.tell(simulation.run(experiment))
