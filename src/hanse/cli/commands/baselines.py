"""hanse baselines."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hanse.cli.options import File, Overrides, Trust, console
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.journal.yaml_text import Values
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
    """Show a baseline comparison's figures, what they say, and where they are."""
    figures = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    few = len(figures["seeds"]) == 1
    table = Table(
        title=f"mean {figures['metric']} of {figures['test_items']:,} test rows",
        caption=None if few else f"95 % intervals over {len(figures['seeds'])} seeds (Student's t)",
        box=SIMPLE_HEAD,  # narrow enough for 80 columns
        collapse_padding=True,
        pad_edge=False,
    )
    for column in ("", figures["metric"], "− federated", "steps", "examples", "seconds", "MB"):
        table.add_column(column, justify="right" if column else "left")
    for line in figures["summary"]:
        spent = [_spent(figures, line["name"], key) for key in ("training_seconds", "bytes")]
        other = line["name"] != "federated"
        table.add_row(
            line["name"].replace("-", ", ", 1).replace("-", " "),
            _shown(line, ".3f"),
            _shown(line["against_federated"], "+.3f") if other else "",
            *(f"{line[key]:,.0f}" for key in ("steps", "examples")),
            f"{spent[0]:,.0f}",
            f"{spent[1] / 1e6:,.1f}",
        )
    console.print(table)
    console.print(figures["verdict"], style="bold", soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", soft_wrap=True)


def _shown(found: Values, form: str) -> str:
    """A value with half the width of its interval."""
    value = format(found["value"], form)
    if found["low"] is None:
        return value
    return f"{value} ±{(found['high'] - found['low']) / 2:.3f}"


def _spent(figures: Values, kind: str, key: str) -> float:
    """The mean over a kind's runs of what each took."""
    some = [
        o[key]
        for variant in figures["variants"]
        if variant["kind"] == kind
        for o in variant["seeds"]
    ]
    return sum(some) / len(some) if some else 0.0


def _seeds(experiment: Experiment, words: list[str] | None) -> list[int]:
    """The seeds that were asked for, each once."""
    if not words:
        return [experiment.seed + step for step in range(3)]
    found = []
    for word in ",".join(words).split(","):
        if not word.strip().isdecimal() or int(word) >= 2**31:
            raise UserError(
                f"--seeds has {word!r} in it; write whole numbers from 0 up, as in --seeds 0,1,2."
            )
        found.append(int(word))
    return list(dict.fromkeys(found))
