"""Columns whose values may be the silos: which one is taken, and the reason in one sentence."""

import re
from collections.abc import Mapping, Sequence

from hanse.data.partitioning import ordered
from hanse.data.sources.split_files import is_piece
from hanse.experiment.validation import NAME
from hanse.planning.first_experiment.data_summary import Source

PLACES = ("folder", "file")  # columns that reading a folder adds
# Names of columns whose values are silos, unless the user names another number; likeliest first.
HOLDERS = (
    *("silo", "client", "client_id", "site", "hospital", "clinic", "bank", "institution"),
    *("organisation", "organization", "company", "branch", "department"),
)
# Names of columns whose values may be silos, if there are as many as the user asks for.
OWNERS = (
    *HOLDERS,
    *("user", "user_id", "author", "speaker", "source", "domain", "topic", "region", "country"),
    *("language", *PLACES),
)
DEFAULT = re.compile(r"silo-\d+")  # a name of clients that have no names


def stored(source: Source, most: int) -> int | None:
    """The number of silos of the data themselves: folders or files, or the values of a holder.

    None if there are none, only one, or more than `most`.
    """
    for column in (*PLACES, *_free(source, HOLDERS)):
        if 1 < len(silo_names(source, column)) <= most:
            return len(silo_names(source, column))
    return None


def owner(source: Source, silos: int) -> str | None:
    """The column whose values are the silos: a likely name, and as many values as silos."""
    for column in _free(source, OWNERS):
        if len(silo_names(source, column)) == silos > 1:
            return column
    return None


def remarks(source: Source, silos: int, taken: str | None) -> list[str]:
    """A sentence on the column that was taken as the owner, or on the likeliest that was not."""
    if taken is not None:
        return [
            f"{taken}: its {silos} values are the silos; data.partition: iid divides the rows "
            "evenly instead."
        ]
    for column in _free(source, OWNERS):
        if column in PLACES:
            continue
        values = {row.fields.get(column) for row in source.rows}
        if None in values:
            return [f"{column} may name the owners of rows, and is not used, since rows lack it."]
        if len(values) > 1:
            return [_offer(column, len(values), silos)]
    return []


def _offer(column: str, values: int, silos: int) -> str:
    """A sentence on a column that was not taken, with the ways to take it."""
    grouped = (
        f", and data.partition: {{key: {{column: {column}}}}} deals whole values to the {silos}"
        if values > silos > 1
        else ""
    )
    return (
        f"{column} may name the owners of rows; it has {values:,} values for {silos} "
        f"silo{'s' if silos > 1 else ''}, so it is not used: --silos {values} makes a silo of each"
        f"{grouped}."
    )


def silo_names(source: Source, column: str) -> set[str]:
    """The values of a column, if every row has one; names of splits are no silos."""
    values = {row.fields.get(column) for row in source.rows}
    names = {value for value in values if value is not None}
    are_splits = column in PLACES and all(map(is_piece, names))
    return set() if len(names) < len(values) or are_splits else names


def client_names(source: Source, column: str) -> list[str]:
    """Names of clients after the values of a column, in the order of its values.

    Empty if two of them would be alike, or if one could be that of a client without a name.
    """
    names = [_name(value, column) for value in ordered(silo_names(source, column))]
    valid = all(re.match(NAME, name) and not DEFAULT.fullmatch(name) for name in names)
    return names if valid and len({*map(str.casefold, names)}) == len(names) else []


def _name(value: str, column: str) -> str:
    """A value with characters that a client's name may have; a number follows its column's name."""
    value = f"{column}-{value}" if value.isdigit() else value
    return re.sub(r"[^\w.-]+", "-", value).strip("-.")


def _free(source: Source, names: Sequence[str]) -> list[str]:
    """The columns with one of these names that are no part of a row, the likeliest first."""
    first, *_ = source.rows
    order: Mapping[str, int] = {name: at for at, name in enumerate(names)}
    free = [name for name in first.fields if name not in source.reading.columns.values()]
    likely = [name for name in free if name.casefold() in order]
    return sorted(likely, key=lambda name: order[name.casefold()])
