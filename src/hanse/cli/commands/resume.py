"""hanse resume."""

from hanse.cli.commands.baselines import show_baselines
from hanse.cli.options import Folder, Trust
from hanse.journal.run_settings import refuse_no_run
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.cli import summary
    from hanse.simulation import run as simulation
    from hanse.simulation.baselines import runs


def resume(folder: Folder, trust: Trust = False) -> None:
    """Continue a run or a baseline comparison that was stopped, to the result without a stop."""
    if (folder / "baselines.yaml").is_file():
        show_baselines(runs.resume(folder, trust))
    else:
        refuse_no_run(folder)  # before torch is imported
        summary.tell(simulation.resume(folder, trusted=trust))
