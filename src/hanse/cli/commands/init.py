"""hanse init."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from hanse.cli.options import console
from hanse.errors import UserError, cleaned
from hanse.lazy_imports import lazy_imports
from hanse.learners.models.model_files import DEFAULT

with lazy_imports():
    from hanse.planning.first_experiment import start as first
    from hanse.planning.first_experiment import token_lengths, yaml_page

SHOWN = 12  # most labels that are listed


def init(
    path: Annotated[
        list[str],
        typer.Option("--from", help="A file, a folder, a hub's owner/name; once for each silo."),
    ],
    silos: Annotated[
        int | None,
        typer.Option(help="Number of silos; by default 4, or one for each file of the folder."),
    ] = None,
    model: Annotated[str, typer.Option(help="The base model.")] = DEFAULT,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default NAME.yaml, after the data.")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Names of columns, such as {text: review_body, label: stars}.")
    ] = "{}",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Go on without rows that cannot be read.")
    ] = False,
    encoding: Annotated[
        str, typer.Option(help="The encoding of the files, if not UTF-8, such as gbk or cp1251.")
    ] = "",
) -> None:
    """Write a commented experiment for your own data."""
    mapping = _mapping(columns)
    tell_start(first.start(path, silos, model, out, mapping, skip_invalid, encoding))


def tell_start(started: "first.Start") -> None:
    """Print the facts about the data, the settings that were chosen, and the next commands."""
    for name, source in started.sources.items():
        prefix = f"{name}: " if len(started.sources) > 1 else ""
        columns = ", ".join(f"{part} from {c!r}" for part, c in source.reading.columns.items())
        _tell(
            "found", f"{prefix}{len(source.rows):,} rows of {source.rows[0].parts} in {source.path}"
        )
        _tell("columns", prefix + columns)
        for remark in source.remarks:
            _tell("", prefix + remark)
    for split, source in started.held.items():
        _tell(split, f"{len(source.rows):,} rows in {source.path}")
    plan = started.plan
    if plan.counts:
        labels = [f"{label} ({count:,})" for label, count in list(plan.counts.items())[:SHOWN]]
        more = f" and {len(plan.counts) - SHOWN} more" if len(plan.counts) > SHOWN else ""
        _tell("labels", ", ".join(labels) + more)
    for remark in started.remarks:
        _tell("", remark)
    column = f" (by {plan.owner})" if plan.owner else ""
    silos = f"{plan.silos} silo{'s' if plan.silos > 1 else ''}{column}"
    _tell("chosen", f"{plan.objective}, {silos}, {plan.schedule.rounds} rounds")
    _tell(
        "",
        f"{plan.held_out.test:,} rows for the test and {plan.held_out.validation:,} for validation",
    )
    _tell_lengths(plan.lengths)
    _tell("time", yaml_page.time_guess(plan, started.model))
    file = shlex.quote(str(started.file))
    _tell("written", str(started.file))
    _tell("next", f"hanse check {file}")
    _tell("", f"hanse run {file}")


def _tell_lengths(lengths: "token_lengths.TokenLengths") -> None:
    """Print the lengths of the rows in tokens, and the rows that are cut."""
    _tell(
        "tokens",
        f"{lengths.mean:,.0f} in an example on average; 95 % of the rows have at most "
        f"{lengths.most:,}, the longest {lengths.longest:,} ({lengths.basis}); max_length is "
        f"{lengths.max_length:,}",
    )
    if lengths.guessed:
        _tell("", f"{lengths.guessed.rstrip('.')}; `hanse check` counts the tokens")
    elif not lengths.fit:
        _tell("", lengths.excess)


def _tell(what: str, words: str) -> None:
    """Print one line, without control characters in names of columns, labels and files."""
    console.tell(f"{what:<8} {cleaned(words)}", indent=9)


def _mapping(text: str) -> dict[str, str]:
    """Parse the mapping {ours: theirs} of --columns."""
    try:
        mapping: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        mapping = None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping):
        raise UserError(
            f"--columns is {text!r:.80}; write {{ours: theirs}}, such as "
            "'{text: review_body, label: stars}'."
        )
    return {part: str(column) for part, column in mapping.items()}
