"""hanse run."""

from hanse.cli.options import File, Overrides, Trust
from hanse.cli.summary import tell
from hanse.experiment import loading
from hanse.simulation import run as simulation


def run(file: File, overrides: Overrides = None, trust: Trust = False) -> None:
    """Run an experiment, all clients on this machine; leave an adapter and a report."""
    tell(simulation.run(loading.load(file, overrides or (), trust)))
