"""JSON: one object a line, or an array of objects, whichever the file holds."""

import json
from collections.abc import Iterator
from typing import Any

from hanse.data.formats.cells import listed
from hanse.data.formats.row import Record
from hanse.data.formats.turns import are_turns
from hanse.errors import UserError


class _Twice(dict[str, Any]):
    """An object in which a key came twice."""


def lines(text: str, name: str) -> Iterator[Record]:
    """The objects of a .jsonl file, one a line; an array that was called so is read as one."""
    if text.lstrip().startswith("["):
        yield from records(text, name)
        return
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{name}:{number}"
            yield place, _object(_line(line, place), place)


def records(text: str, name: str) -> Iterator[Record]:
    """The objects of a .json file: of its array, or of the one array that its object holds.

    A file of one object a line is read as such, and a single object is one record.
    """
    if not text.strip():
        return
    try:
        value = _parsed(text, name)
    except json.JSONDecodeError as error:
        # The first value is whole, and another follows.
        if error.msg == "Extra data" and not text.lstrip().startswith("["):
            yield from lines(text, name)
            return
        raise UserError(
            f"{name}:{error.lineno} is not valid JSON at character {error.colno}: "
            f"{error.msg.lower()}; mend it, or write one JSON object a line in a .jsonl file."
        ) from None
    for number, entry in enumerate(_entries(value, name), 1):
        place = f"{name}: entry {number}"
        yield place, _object(entry, place)


def _entries(value: Any, name: str) -> list[Any]:
    """The list that a document is or holds."""
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
            f"{name} holds the arrays {listed(arrays)}, and it cannot be told which is meant; put "
            "one of them in a file of its own."
        )
    return next(iter(arrays.values()))


def _line(line: str, place: str) -> Any:
    try:
        return _parsed(line, place)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place} is not valid JSON at character {error.colno}: {error.msg.lower()}; "
            "write one JSON object a line."
        ) from None


def _parsed(text: str, place: str) -> Any:
    """The value that a text spells; JSONDecodeError is left to the caller, who knows the line."""
    try:
        return json.loads(text, object_pairs_hook=_of_pairs)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise UserError(f"{place} is nested too deeply; write flat objects.") from None
    except ValueError:  # Python refuses to read an integer of more than 4300 digits
        raise UserError(
            f"{place} holds a number with too many digits; write it as text in quotes."
        ) from None


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(found)


def _object(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, _Twice):
        raise UserError(f"{place} has one key twice; of {listed(value)}, rename or drop one.")
    if not isinstance(value, dict):
        raise UserError(
            f"{place} holds a {type(value).__name__}, not an object; write JSON objects such as "
            '{"text": "…"}.'
        )
    return value
