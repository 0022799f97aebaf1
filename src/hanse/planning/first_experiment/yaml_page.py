"""The commented YAML of a first experiment."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from hanse.planning.first_experiment.data_summary import Source
from hanse.planning.first_experiment.defaults import Plan

NUMBER = re.compile(r"[-+]?\d+|true|false", re.IGNORECASE)
PLAIN = re.compile(r"\w[\w -]*")  # a column's name that a prompt may contain
ASIDE = "\t# "  # begins a comment; filtered values contain no tab
COLUMN = 34  # where comments begin


def page(
    file: Path,
    name: str,
    model: str,
    sources: Mapping[str, Source],
    plan: Plan,
    held: Mapping[str, str],
) -> str:
    """The text of an experiment with one source that is divided, or with a source at each silo.

    held: paths of files for test or validation, by the split.
    """
    template = Path(__file__).with_name("experiment.yaml.jinja").read_text(encoding="utf-8")
    environment = Environment(  # noqa: S701 (YAML; every value of the user's passes a filter)
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"yaml": scalar, "note": note, "line": line}
    first = next(iter(sources.values()))
    cut = plan.lengths.cut
    rouge = importlib.util.find_spec("rouge_score") is not None
    text = environment.from_string(template).render(
        file=file,
        name=name,
        model=model,
        plan=plan,
        silos=sources if len(sources) > 1 else {},
        source=first,
        held=held,
        aside=ASIDE,
        time=duration(plan.seconds),
        cut=f"{100 * cut:.0f} % of the rows are longer and are cut" if cut else "all fit",
        question=_question(first),
        unnamed=bool(plan.labels) and all(map(NUMBER.fullmatch, plan.labels)),
        scored="[exact_match, rouge_l]" if rouge else "[exact_match]",
    )
    return "\n".join(map(_aligned, text.rstrip().split("\n"))) + "\n"


def duration(seconds: float) -> str:
    """A duration in words, about."""
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes > 1 else "about a minute"


def _aligned(line: str) -> str:
    """A line whose comment, if it has one, begins in the column of comments."""
    code, tab, comment = line.partition("\t")
    return f"{code:<{COLUMN - 2}}  {comment}" if tab else line


def scalar(value: Any) -> str:
    """A value as YAML on one line, quoted where needed."""
    style = None if not isinstance(value, str) or value.isprintable() else '"'
    text = yaml.safe_dump(
        [value], default_flow_style=True, default_style=style, allow_unicode=True, width=2**31
    )
    return text.strip()[1:-1]


def line(value: object) -> str:
    """A value in a comment, on one line."""
    shown = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return " ".join(shown.split())


def note(value: object) -> str:
    """A value in a comment, on one line of at most 60 characters."""
    text = line(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _question(source: Source) -> str:
    """The prompt of a labelled row: its text, and the name of its label."""
    column = source.reading.columns.get("label", "label")
    name = column if PLAIN.fullmatch(column) else "label"
    return f"{{text}}\n{name[:1].upper()}{name[1:].replace('_', ' ')}:"
