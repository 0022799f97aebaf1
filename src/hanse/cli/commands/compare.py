"""hanse compare."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hanse.cli.options import console
from hanse.journal.baselines_records import BASELINES
from hanse.journal.run_settings import refuse_no_run
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.reports.comparison import comparison, page


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Two run folders or more.")],
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("compare.html"),
) -> None:
    """Compare runs: scores, bytes, seconds, and the settings that differ."""
    for folder in folders:  # before torch is imported
        if not (folder / BASELINES).is_file():
            refuse_no_run(folder)
    result = comparison.compare(folders)
    grid = Table()
    for name in ("", *(run.name for run in result.runs)):
        grid.add_column(name, justify="right" if name else "left", overflow="fold")
    for what, cells in page.table(result).items():
        grid.add_row(what, *cells)
    grid.add_section()
    for key, settings in result.settings.items():
        grid.add_row(key, *settings, style="dim")
    console.print(grid)
    for remark in result.remarks:
        console.print(remark, soft_wrap=True)
    console.print(f"page     {page.write_comparison(result, out)}", soft_wrap=True)
