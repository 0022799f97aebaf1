"""hanse resume."""

from hanse import simulation
from hanse.commands.ending import tell
from hanse.commands.ladder import tell_ladder
from hanse.commands.words import Folder, Trust
from hanse.ladder import runs


def resume(folder: Folder, trust: Trust = False) -> None:
    """Go on with a run or a ladder that was stopped; it ends as if it never had been."""
    if (folder / "ladder.yaml").is_file():
        tell_ladder(runs.resume(folder, trust))
    else:
        tell(simulation.resume(folder, trusted=trust))
