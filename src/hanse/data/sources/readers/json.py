"""Reads JSON files: one object in each line, or an array of objects."""

import json
from collections.abc import Iterator
from typing import Any

from hanse.data.formats.cells import json_type, listed
from hanse.data.formats.row import Record
from hanse.data.formats.turns import are_turns
from hanse.errors import UserError


class _RepeatedKey(dict[str, Any]):
    """An object that has a key twice."""


def lines(text: str, name: str) -> Iterator[Record]:
    """The objects of a .jsonl file, one in each line; an array in such a file is read, too."""
    if text.lstrip().startswith("["):
        yield from records(text, name)
        return
    # splitlines() would split at U+2028 and the like, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{name}:{number}"
            yield place, _object(_line(line, place), place)


def records(text: str, name: str) -> Iterator[Record]:
    """The objects of a .json file: of its array, or of the only array in its object.

    A file with one object in each line is read, too, and a single object is one record.
    """
    if not text.strip():
        return
    try:
        value = _parsed(text, name)
    except json.JSONDecodeError as error:
        # A second value follows the first: probably one object in each line.
        if error.msg == "Extra data" and not text.lstrip().startswith("["):
            yield from lines(text, name)
            return
        raise UserError(
            f"{name}:{error.lineno} is not valid JSON at character {error.colno}: "
            f"{error.msg.lower()}; correct it, or write one JSON object in each line of a .jsonl "
            "file."
        ) from None
    for number, entry in enumerate(_entries(value, name), 1):
        place = f"{name}: entry {number}"
        yield place, _object(entry, place)


def _entries(value: Any, name: str) -> list[Any]:
    """The list of records that a document is or holds."""
    if isinstance(value, list):
        return value
    arrays = {
        key: inner
        for key, inner in (value.items() if isinstance(value, dict) else ())
        if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner)
    }
    if any(are_turns(inner) for inner in arrays.values()) or not arrays:
        return [value]  # one conversation, or one record of another kind
    if len(arrays) > 1:
        raise UserError(
            f"{name} holds several arrays, {listed(arrays)}, and only one can be read; put that "
            "one into a file of its own."
        )
    return next(iter(arrays.values()))


def _line(line: str, place: str) -> Any:
    """The value in a line; raises UserError with its place if it is not JSON."""
    try:
        return _parsed(line, place)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place} is not valid JSON at character {error.colno}: {error.msg.lower()}; "
            "write one JSON object in each line."
        ) from None


def _parsed(text: str, place: str) -> Any:
    """The value in a text; raises JSONDecodeError, for which the caller knows the line."""
    try:
        return json.loads(text, object_pairs_hook=_of_pairs)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise UserError(f"{place} is nested too deeply; write flat objects.") from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        raise UserError(
            f"{place} holds a number with too many digits; write it as text in quotes."
        ) from None


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, marked if a key is repeated."""
    value = dict(pairs)
    return value if len(value) == len(pairs) else _RepeatedKey(value)


def _object(value: Any, place: str) -> dict[str, Any]:
    """A value that must be an object; raises UserError if it is not, or repeats a key."""
    if isinstance(value, _RepeatedKey):
        raise UserError(f"{place} has one of the keys {listed(value)} twice; rename or drop it.")
    if not isinstance(value, dict):
        raise UserError(
            f"{place} holds {json_type(value)}, not an object; write JSON objects such as "
            '{"text": "…"}.'
        )
    return value
