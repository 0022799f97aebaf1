"""Reads JSON files: one object in each line, an array of objects, or a table by columns."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from hanse.data.formats.cells import json_type, listed
from hanse.data.formats.invalid_rows import Refusal, refuse
from hanse.data.formats.row import Record
from hanse.data.formats.turns import are_turns
from hanse.data.sources.readers import json_tables
from hanse.data.sources.split_files import split_of
from hanse.errors import UserError
from hanse.tensors import json_text
from hanse.tensors.json_text import ExtraDataError, JsonError


def lines(text: str, name: str, refuse: Refusal = refuse) -> Iterator[Record]:
    """The objects of a .jsonl file, one in each line; an array in such a file is read, too.

    refuse: takes a line that is no object.
    """
    if text.lstrip().startswith("["):
        yield from records(text, name, refuse)
        return
    if (values := _several(text)) is not None:
        entries = _entries(values[0], name) if len(values) == 1 else values
        yield from _numbered(entries, name, refuse)
        return
    # splitlines() would split at U+2028 and the like, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{name}:{number}"
            try:
                record = _object(_line(line.strip().removesuffix(","), place), place)
            except UserError as fault:
                refuse(place, fault)
            else:
                yield place, record


def records(text: str, name: str, refuse: Refusal = refuse) -> Iterator[Record]:
    """The objects of a .json file: of its array, of the only array in its object, or of a table.

    A file with one object in each line is read, too, and a single object is one record.
    refuse: takes an entry of the array that is no object.
    """
    if not text.strip():
        return
    try:
        value = _parsed(text, name)
    except JsonError as error:
        # A second value follows the first: probably one object in each line.
        if isinstance(error, ExtraDataError) and not text.lstrip().startswith("["):
            yield from lines(text, name, refuse)
            return
        raise UserError(
            f"{name}:{error.line} is not valid JSON at character {error.column}: "
            f"{error}; correct it, or write one JSON object in each line of a .jsonl "
            "file."
        ) from None
    yield from _numbered(_entries(value, name), name, refuse)


def _numbered(entries: Sequence[Any], name: str, refuse: Refusal) -> Iterator[Record]:
    """The entries of a file with their numbers; refuse: takes an entry that is no object."""
    for number, entry in enumerate(entries, 1):
        place = f"{name}: entry {number}"
        try:
            record = _object(entry, place)
        except UserError as fault:
            refuse(place, fault)
        else:
            yield place, record


def _several(text: str) -> list[Any] | None:
    """The values of a text that are not one in each line; None if the first line is a value."""
    first = text.lstrip().partition("\n")[0].strip().removesuffix(",")
    try:
        json_text.parse(first)
    except JsonError:
        try:
            return json_text.parse_all(text)
        except JsonError:
            pass
    return None


def _entries(value: Any, name: str) -> list[Any]:
    """The list of records that a document is or holds."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and (table := json_tables.records(value)) is not None:
        return table
    arrays = {
        key: inner
        for key, inner in (value.items() if isinstance(value, dict) else ())
        if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner)
    }
    if any(are_turns(inner) for inner in arrays.values()) or not arrays:
        inner = [*value.values()] if isinstance(value, dict) else []
        if len(inner) == 1 and isinstance(inner[0], dict):
            return _entries(inner[0], name)  # {"data": {"train": […]}}
        return [value]  # one conversation, or one record of another kind
    if len(arrays) > 1 and all(split_of(PurePath(key)) for key in arrays):
        return [{"split": key, **entry} for key, inner in arrays.items() for entry in inner]
    if len(arrays) > 1:
        raise UserError(
            f"{name} holds several arrays, {listed(arrays)}, and only one can be read; put that "
            "one into a file of its own."
        )
    (array,) = arrays.values()
    # The hub's viewer puts each row into an object with its number.
    viewed = all({"row_idx", "row"} <= entry.keys() for entry in array)
    return [entry["row"] for entry in array] if viewed else array


def _line(line: str, place: str) -> Any:
    """The value in a line; raises UserError with its place if it is not JSON."""
    try:
        return _parsed(line, place)
    except JsonError as error:
        raise UserError(
            f"{place} is not valid JSON at character {error.column}: {error}; "
            "write one JSON object in each line."
        ) from None


def _parsed(text: str, place: str) -> Any:
    """The value in a text; raises JsonError for wrong syntax, of which the caller knows the line.

    Raises UserError for whatever else the reader of JSON refuses.
    """
    try:
        return json_text.parse(text)
    except JsonError as error:
        if error.line:
            raise
        raise UserError(
            f"{place} cannot be read: {error}; write flat objects with each key once, and long "
            "numbers as text in quotes."
        ) from None


def _object(value: Any, place: str) -> dict[str, Any]:
    """A value that must be an object; raises UserError if it is not."""
    if not isinstance(value, dict):
        raise UserError(
            f"{place} holds {json_type(value)}, not an object; write JSON objects such as "
            '{"text": "…"}.'
        )
    return value
