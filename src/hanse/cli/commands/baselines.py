"""hanse baselines."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hanse.cli.options import File, Overrides, Trust, console
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.journal.baselines_records import FEDERATED, Span, SummaryLine, read_baselines
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.simulation.baselines import runs


def baselines(
    file: File,
    overrides: Overrides = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            help="One or several, as in 0,1,2; the experiment's and the next two if none."
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Does federation pay? Train each silo alone, federated and centralised, with several seeds."""
    experiment = loading.load(file, overrides or (), trust)
    show_baselines(runs.run(experiment, _seeds(experiment, seeds)))


def show_baselines(folder: Path) -> None:
    """Print the figures of a baseline comparison, its verdict, and the path of its report."""
    figures = read_baselines(folder)
    count = len(figures.seeds)
    table = Table(
        title=f"mean {figures.metric} of {figures.test_items:,} test rows",
        caption=f"95 % intervals over {count} seeds (Student's t)" if count > 1 else None,
        box=SIMPLE_HEAD,  # narrow enough for 80 columns
        collapse_padding=True,
        pad_edge=False,
    )
    for column in ("", str(figures.metric), "− federated", "steps", "examples", "seconds", "MB"):
        table.add_column(column, justify="right" if column else "left")
    for line in figures.summary:
        outcomes = [o for v in figures.variants if v.kind == line.name for o in v.seeds]
        table.add_row(
            line.name.replace("-", ", ", 1).replace("-", " "),
            _shown(line, ".3f"),
            _shown(line.against_federated, "+.3f") if line.name != FEDERATED else "",
            _amount(line.steps),
            _amount(line.examples),
            _amount(_mean(outcome.training_seconds for outcome in outcomes)),
            f"{_mean(outcome.bytes for outcome in outcomes) / 1e6:,.1f}",
        )
    console.print(table)
    console.print(figures.verdict, style="bold", soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", soft_wrap=True)


def _amount(value: float) -> str:
    """A whole amount; a dash for what nobody has done, or reported."""
    return f"{value:,.0f}" if value else "–"


def _shown(span: Span | SummaryLine, form: str) -> str:
    """A value with half the width of its interval."""
    value = format(span.value, form)
    if span.low is None or span.high is None:
        return value
    return f"{value} ±{(span.high - span.low) / 2:.3f}"


def _mean(values: Iterable[float]) -> float:
    """The mean; 0 of no values, as the base model has."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _seeds(experiment: Experiment, words: list[str] | None) -> list[int]:
    """The seeds in the words of --seeds, each once; by default three."""
    if not words:
        return [experiment.seed + step for step in range(3)]
    seeds = []
    for word in ",".join(words).split(","):
        if not word.strip().isdecimal() or int(word) >= 2**31:
            raise UserError(
                f"--seeds has {word!r} in it; write whole numbers from 0 up, as in --seeds 0,1,2."
            )
        seeds.append(int(word))
    return list(dict.fromkeys(seeds))
