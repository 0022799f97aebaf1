"""Copies of an experiment's file with other settings, in which the user's own text stays."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from hanse.planning.yaml_comments import scalar

WIDTH = 100  # signs of a line


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
