"""Copies of an experiment's file with other settings, in which the user's own text stays."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.planning.yaml_comments import scalar

WIDTH = 100  # signs of a line


def write(out: Path, page: Callable[[bool], str], wanted: Experiment, anew: bool) -> None:
    """Write a page, and load it again to be sure that it is the wanted experiment.

    page: the text of the copy; True: with all settings written anew.
    anew: write them anew at once. So is a file whose text cannot be changed otherwise, such as one
        that has a changed setting under another tool's name.
    Raises UserError, and leaves no file, if the copy is another experiment all the same.
    """
    for whole in dict.fromkeys((anew, True)):
        atomic_files.write(out, page(whole).encode())
        if _is_written(out, wanted):
            return
    out.unlink()
    raise UserError(
        f"{out} cannot be written: a copy of the file with the chosen settings is read as another "
        "experiment; write the copy by hand."
    )


def _is_written(file: Path, wanted: Experiment) -> bool:
    """True if a file is the experiment, under any name."""
    try:
        written = loading.load(file)
    except UserError:
        return False
    return {**written.resolved(), "name": ""} == {**wanted.resolved(), "name": ""}


def in_block_style(text: str, keys: Iterable[str]) -> bool:
    """True if each of these top-level keys begins a line."""
    return all(re.search(rf"(?m)^{re.escape(str(key))}\s*:", text) for key in keys)


def without(text: str, keys: Iterable[str]) -> str:
    """A YAML text without some top-level keys; a value ends at the next unindented line."""
    kept, inside, names = [], False, "|".join(map(re.escape, keys))
    for row in text.splitlines():
        if re.match(r"[^\s#]", row):
            inside = bool(names and re.match(rf"(['\"]?)({names})\1\s*:", row))
        elif inside and row.startswith("#"):
            inside = False
        if not inside:
            kept.append(row)
    return "\n".join(kept)


def lost_comments(text: str, keys: Iterable[str]) -> str:
    """A clause on the comments that `without` these keys does not keep; empty if there are none."""
    lost = [f"`{key}`" for key in keys if without(text, (key,)).count("#") < text.count("#")]
    return f"comments in {' and '.join(lost)} are not kept" if lost else ""


def with_settings(text: str, name: str, values: Mapping[str, Any]) -> str:
    """A YAML text with other values in a top-level section; all else stays, comments too.

    values: plain ones, by their names. A section that is missing is added at the end.
    """
    root = yaml.compose(text)
    sections = {key.value: value for key, value in root.value} if root is not None else {}
    own = sections.get(name)
    if not isinstance(own, yaml.MappingNode) or not own.value:
        return "\n".join([without(text, (name,)).rstrip("\n"), *section(name, dict(values)), ""])
    known, first = {key.value: value for key, value in own.value}, own.value[0][0].start_mark
    between = ", " if own.flow_style else "\n" + " " * first.column
    edits = []
    for key, value in values.items():
        if key in known:
            old = known[key]
            edits.append((old.start_mark.index, old.end_mark.index, scalar(value)))
        else:
            edits.append((first.index, first.index, f"{key}: {scalar(value)}{between}"))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def section(name: str, values: Any, indent: int = 0) -> Iterator[str]:
    """A setting as YAML; short ones on one line."""
    text = f"{' ' * indent}{scalar(name)}: {scalar(values)}"
    if len(text) <= WIDTH or not isinstance(values, Mapping | list):
        yield text
    elif isinstance(values, Mapping):
        yield f"{' ' * indent}{scalar(name)}:"
        for key, value in values.items():
            yield from section(key, value, indent + 2)
    else:
        flow = yaml.safe_dump(values, default_flow_style=True, width=WIDTH - indent - 2)
        yield f"{' ' * indent}{scalar(name)}:"
        yield from (f"{' ' * (indent + 2)}{part.strip()}" for part in flow.splitlines())
