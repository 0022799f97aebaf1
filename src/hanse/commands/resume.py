"""hanse resume."""

from hanse import simulation
from hanse.commands.ending import tell
from hanse.commands.words import Folder


def resume(folder: Folder) -> None:
    """Go on with a run that was stopped; it ends as if it never had been."""
    tell(simulation.resume(folder))
