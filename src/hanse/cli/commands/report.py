"""hanse report."""

from hanse.cli.options import Folder, console
from hanse.reports.baselines.page import write_baselines_report
from hanse.reports.run.page import write_report


def report(folder: Folder) -> None:
    """Write the report of a run or a baseline comparison again, finished or not."""
    baselines = (folder / "baselines.yaml").is_file() or (folder / "baselines.json").is_file()
    file = write_baselines_report(folder) if baselines else write_report(folder)
    console.print(f"report   {file}", soft_wrap=True)
    if (folder / "plots").is_dir():
        console.print(f"plots    {folder / 'plots'}", soft_wrap=True)
