"""hanse evaluate."""

from typing import Annotated

import typer
from rich.table import Table

from hanse.cli.options import Folder, Overrides, Trust, console
from hanse.errors import UserError, cleaned
from hanse.journal.run_settings import refuse_no_run
from hanse.lazy_imports import lazy_imports
from hanse.serving import adapter_folder

with lazy_imports():
    from hanse.cli import summary
    from hanse.serving import evaluate as rescore

SAMPLES = 3  # that are shown
PROMPT = 400  # most characters of a prompt, its last


def evaluate(
    folder: Folder,
    overrides: Overrides = None,
    data: Annotated[str | None, typer.Option(help="Score all rows of this file instead.")] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    trust: Trust = False,
) -> None:
    """Score a finished run's adapter beside its base model, on the same rows."""
    if split not in ("test", "validation"):
        raise UserError(f"--split is {split!r}; it can be test or validation.")
    refuse_no_run(folder)  # before torch is imported
    adapter_folder.refuse_unfinished(folder)
    for name, comparison in rescore.compare(folder, data, split, overrides or (), trust).items():
        table = Table(title=f"{name}, {len(comparison.base.items):,} rows")
        for column in ("metric", "base", "adapter"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for metric, value in comparison.base.metrics.items():
            table.add_row(
                cleaned(metric), f"{value:.4f}", f"{comparison.adapted.metrics[metric]:.4f}"
            )
        console.print(table)
        metric = cleaned(next(iter(comparison.base.metrics)))
        difference = summary.difference(comparison.adapted.items, comparison.base.items)
        console.print(f"difference in {metric}: {difference}", soft_wrap=True)
        _show_samples(comparison)


def _show_samples(comparison: "rescore.Comparison") -> None:
    """Print a few prompts with the answers of the data, the base model and the adapter."""
    pairs = list(zip(comparison.base.samples, comparison.adapted.samples, strict=True))[:SAMPLES]
    for number, (base, adapted) in enumerate(pairs, 1):
        console.print(f"\nsample {number}", style="bold")
        cut = "…" if len(base.prompt) > PROMPT else ""
        console.print(f"{cut}{base.prompt[-PROMPT:].strip()}", style="dim", soft_wrap=True)
        for who, text in (("data", base.answer), ("base", base.said), ("adapter", adapted.said)):
            console.print(f"{who:<8} {_indented(text.strip())}", soft_wrap=True)


def _indented(text: str) -> str:
    """Indent a text's lines but the first, so that none looks like a line of the command."""
    return text.replace("\n", f"\n{'':<9}")
