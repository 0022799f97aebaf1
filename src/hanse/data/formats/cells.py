"""One value of a record: as text, as a label, or in words for an error message."""

import math
from collections.abc import Iterable
from typing import Any

from hanse.errors import UserError

LISTED = 12  # most columns that an error names
LONGEST = 10_000_000  # characters of one text; of more than that, no model reads a hundredth


def text(value: Any, name: str, place: str, empty: bool = False) -> str:
    """A value that must be text; raises UserError with its place, also for blank text.

    empty: blank text, or none at all, is allowed.
    """
    if empty and missing(value):
        return ""
    if not isinstance(value, str):
        raise UserError(f"{place}: {name} came as {sort(value)}; write it as text in quotes.")
    if not empty and not value.strip():
        raise UserError(f"{place}: {name} is empty; write some text there or drop the row.")
    if len(value) > LONGEST:
        raise UserError(
            f"{place}: {name} holds {len(value):,} characters, and a row may hold {LONGEST:,}; "
            "look for a quote that is never closed, or split the text into rows."
        )
    return whole(value, name, place)


def label(value: Any, place: str, name: str = "label") -> str:
    """A label: text without the space around it, a whole number, true or false.

    Numbers and truth are written as JSON writes them, and 1.0 as 1: a table that lost one label
    turns the others' numbers into fractions.
    """
    fraction = isinstance(value, float) and not value.is_integer()
    written = None if fraction else plain(value)
    if written is None or not written.strip():
        came = str(value) if fraction else sort(value)
        came = "empty" if missing(value) or written is not None else came
        raise UserError(
            f"{place}: {name} came as {came}; a {name.split()[0]} is a word, a whole number, "
            "true or false; mend it, or drop the row."
        )
    return whole(written, name, place).strip()


def plain(value: Any) -> str | None:
    """Text, numbers and truth as text, None for anything else: true, 4, 0.5; 4.0 is 4."""
    if missing(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def whole(value: str, name: str, place: str) -> str:
    """The text as it came, if it can be written down at all."""
    # JSON can spell half of a surrogate pair ("\\ud83d"), on which every tokenizer stumbles later.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{place}: {name} holds half of a surrogate pair, which is not text; write the whole "
            "character."
        ) from None
    return value


def missing(value: Any) -> bool:
    """Whether a table has nothing there; pandas writes NaN for that."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def listed(names: Iterable[str]) -> str:
    """The names of columns as a phrase, not too long."""
    shown = [f"{name!r:.40}" for name in names]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return (", ".join(shown[:LISTED]) or "(none)") + more


def sort(value: Any) -> str:
    """What came, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bytes: "bytes", bool: "true or false"}
    numbers = {int: "a number", float: "a number"}
    if value is None:
        return "null"
    return (names | numbers).get(type(value), f"a {type(value).__name__}")
