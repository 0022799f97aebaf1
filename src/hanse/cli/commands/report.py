"""hanse report."""

from hanse.cli.options import Folder, console
from hanse.reports.baselines.page import write_ladder_report
from hanse.reports.run.page import write_report


def report(folder: Folder) -> None:
    """Write the report of a run or a ladder again, finished or not."""
    ladder = (folder / "ladder.yaml").is_file() or (folder / "ladder.json").is_file()
    file = write_ladder_report(folder) if ladder else write_report(folder)
    console.print(f"report   {file}", soft_wrap=True)
    if (folder / "plots").is_dir():
        console.print(f"plots    {folder / 'plots'}", soft_wrap=True)
