"""hanse run."""

from hanse import loading, simulation
from hanse.commands.ending import tell
from hanse.commands.words import File, Overrides


def run(file: File, overrides: Overrides = None) -> None:
    """Run an experiment, all clients on this machine; leave an adapter and a report."""
    tell(simulation.run(loading.load(file, overrides or ())))
