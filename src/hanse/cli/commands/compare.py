"""hanse compare."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hanse.cli.options import console
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.reports.comparison import comparison, page


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Two run folders or more.")],
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("compare.html"),
) -> None:
    """Put runs beside each other: scores, bytes, seconds, and what was set otherwise."""
    found = comparison.compare(folders)
    shown = Table()
    for name in ("", *(run.name for run in found.runs)):
        shown.add_column(name, justify="right" if name else "left", overflow="fold")
    for what, cells in page.table(found).items():
        shown.add_row(what, *cells)
    shown.add_section()
    for key, settings in found.settings.items():
        shown.add_row(key, *settings, style="dim")
    console.print(shown)
    for remark in found.remarks:
        console.print(remark, soft_wrap=True)
    console.print(f"page     {page.write_comparison(found, out)}", soft_wrap=True)
