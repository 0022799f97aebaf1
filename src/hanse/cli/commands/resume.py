"""hanse resume."""

from hanse.cli.commands.ladder import tell_ladder
from hanse.cli.options import Folder, Trust
from hanse.cli.summary import tell
from hanse.simulation import run as simulation
from hanse.simulation.baselines import runs


def resume(folder: Folder, trust: Trust = False) -> None:
    """Go on with a run or a ladder that was stopped; it ends as if it never had been."""
    if (folder / "ladder.yaml").is_file():
        tell_ladder(runs.resume(folder, trust))
    else:
        tell(simulation.resume(folder, trusted=trust))
