"""hanse run."""

from hanse import loading, simulation
from hanse.commands.ending import tell
from hanse.commands.words import File, Overrides, Trust


def run(file: File, overrides: Overrides = None, trust: Trust = False) -> None:
    """Run an experiment, all clients on this machine; leave an adapter and a report."""
    tell(simulation.run(loading.load(file, overrides or (), trust)))
