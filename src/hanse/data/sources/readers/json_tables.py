"""Turns tables that JSON holds by columns or by rows' names into records."""

from collections.abc import Mapping
from typing import Any

from hanse.data.formats.turns import are_turns

Records = list[dict[str, Any]]
_TAGGED = {"words", "tokens"}  # columns of one record whose values are lists of words


def records(value: Mapping[str, Any]) -> Records | None:
    """The records of a table that pandas or `datasets` has written as one object, or None.

    It may hold columns as lists or as objects by the rows' names (pandas' default), rows as objects
    by their names (orient="index"), or names of columns beside rows of cells (orient="split").
    """
    return _split(value) or _of_lists(value) or _of_objects(value)


def _split(value: Mapping[str, Any]) -> Records | None:
    """The records of {"columns": […], "data": [[…], …]}."""
    columns, data = value.get("columns"), value.get("data")
    if not isinstance(columns, list) or not isinstance(data, list):
        return None
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        return None
    return [dict(zip(map(str, columns), row, strict=True)) for row in data]


def _of_lists(value: Mapping[str, Any]) -> Records | None:
    """The records of {column: [value, …], …}, if all columns are equally long.

    One record may hold lists, too: a conversation, or words and their tags.
    """
    columns = list(value.values())
    if not columns or not all(isinstance(column, list) and column for column in columns):
        return None
    nested = any(isinstance(item, list) for column in columns for item in column)
    tagged = _TAGGED & {name.casefold() for name in value} and not nested
    records = all(isinstance(item, dict) for column in columns for item in column)
    if len({len(column) for column in columns}) > 1 or tagged or records:
        return None
    if any(map(are_turns, columns)):
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _of_objects(value: Mapping[str, Any]) -> Records | None:
    """The records of {column: {row: value, …}, …}, or of {row: {column: value, …}, …}.

    Names of rows are numbers in one of them; if neither has any, the inner names are columns.
    """
    inner = list(value.values())
    if not inner or not all(isinstance(item, dict) and item for item in inner):
        return None
    if any(item.keys() != inner[0].keys() for item in inner):
        return inner if _are_numbers(value) else None
    if _are_numbers(inner[0]):
        return [{column: cells[row] for column, cells in value.items()} for row in inner[0]]
    return inner if len(inner) > 1 or _are_numbers(value) else None


def _are_numbers(names: Mapping[str, Any]) -> bool:
    return all(name.isdecimal() for name in names)
