"""hanse report."""

from hanse.cli.options import Folder, console
from hanse.journal.run_settings import refuse_no_run
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.reports.baselines import page as baselines_page
    from hanse.reports.run import page as run_page


def report(folder: Folder) -> None:
    """Write the report of a run or a baseline comparison again, finished or not."""
    if (folder / "baselines.yaml").is_file() or (folder / "baselines.json").is_file():
        file = baselines_page.write_baselines_report(folder)
    else:
        refuse_no_run(folder)  # before torch is imported
        file = run_page.write_report(folder)
    console.print(f"report   {file}", soft_wrap=True)
    if (folder / "plots").is_dir():
        console.print(f"plots    {folder / 'plots'}", soft_wrap=True)
