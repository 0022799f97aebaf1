"""hanse evaluate."""

from typing import Annotated

import typer
from rich.table import Table

from hanse import rescore
from hanse.commands.ending import shown
from hanse.commands.words import Folder, Overrides, console
from hanse.errors import UserError


def evaluate(
    folder: Folder,
    overrides: Overrides = None,
    data: Annotated[str | None, typer.Option(help="Score all rows of this file instead.")] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
) -> None:
    """Score a finished run's adapter beside its base model, on the same rows."""
    if split not in ("test", "validation"):
        raise UserError(f"--split is {split!r}; it can be test or validation.")
    for name, found in rescore.compare(folder, data, split, overrides or ()).items():
        table = Table(title=f"{name}, {len(found.base.items):,} rows")
        for column in ("metric", "base", "adapter"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for metric, value in found.base.metrics.items():
            table.add_row(metric, f"{value:.4f}", f"{found.adapted.metrics[metric]:.4f}")
        console.print(table)
        said = shown(found.difference)
        console.print(f"difference of the items' scores: {said}", soft_wrap=True)
