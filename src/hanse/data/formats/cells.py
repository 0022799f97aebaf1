"""One value of a record: as text, as a label, or in words for an error message."""

import math
from collections.abc import Iterable
from typing import Any

from hanse.errors import UserError

LISTED = 12  # most columns that an error message names
LONGEST = 10_000_000  # characters of one text; a model reads less than a hundredth of that


def text(value: Any, name: str, place: str, empty: bool = False) -> str:
    """A value as text; raises UserError with its place if it is no text, number or boolean.

    empty: blank text, or no value at all, is allowed.
    """
    if empty and missing(value):
        return ""
    if missing(value) or (not empty and isinstance(value, str) and not value.strip()):
        description = "null" if value is None else "empty"
        raise UserError(f"{place}: {name} is {description}; write some text there or drop the row.")
    written = plain(value)
    if written is None:
        raise UserError(f"{place}: {name} is {json_type(value)}; write it as text in quotes.")
    if len(written) > LONGEST:
        raise UserError(
            f"{place}: {name} holds {len(written):,} characters, and a row may hold {LONGEST:,}; "
            "look for a quote that is never closed, or split the text into rows."
        )
    return encodable(written, name, place)


def label(value: Any, place: str, name: str, kind: str = "label") -> str:
    """A label as text: a word without the space around it, a number, true or false.

    name: of its column, and kind: label or tag, for messages.
    Numbers and booleans are written as in JSON, but 1.0 as 1: in a table where one label is
    missing, the others' numbers become fractions. A list of one label is that label.
    """
    if kind == "label" and isinstance(value, list) and value:
        if len(value) > 1:
            raise UserError(
                f"{place}: {name} holds {len(value)} labels, and a row can have only one "
                "(multi-label classification is not possible); keep one of them, or make a row of "
                "each."
            )
        value = value[0]
    infinite = isinstance(value, float) and math.isinf(value)
    text = None if infinite else plain(value)
    if text is None or not text.strip():
        description = str(value) if infinite else json_type(value)
        description = "empty" if missing(value) or text is not None else description
        raise UserError(
            f"{place}: {name} is {description}; a {kind} is a word, a number, true or false; "
            "correct it, or drop the row."
        )
    return encodable(text, name, place).strip()


def plain(value: Any) -> str | None:
    """Text, numbers and booleans as text (true, 4, 0.5; 4.0 is 4); None for anything else."""
    if missing(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def encodable(value: str, name: str, place: str) -> str:
    """The same text; raises UserError if it has no UTF-8 encoding."""
    # JSON can spell half of a surrogate pair ("\\ud83d"), which no tokenizer can read. Readers of
    # files write faulty bytes as U+DC80 to U+DCFF.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        if "\udc80" <= value[error.start] <= "\udcff":
            raise UserError(
                f"{place}: {name} holds bytes that are not UTF-8, as the rest of the file is; "
                "correct them, or drop the row."
            ) from None
        raise UserError(
            f"{place}: {name} holds half of a surrogate pair, which is not text; write the whole "
            "character."
        ) from None
    return value


def missing(value: Any) -> bool:
    """Tell if a table has no value there; pandas writes NaN for that."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def empty(value: Any) -> bool:
    """Tell if a cell holds nothing: no value, blank text, or a list or object without items."""
    return missing(value) or value in ("", [], {}) or (isinstance(value, str) and not value.strip())


def listed(names: Iterable[str]) -> str:
    """The names of columns as a phrase of limited length."""
    shown = [f"{name!r:.40}" for name in names]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return (", ".join(shown[:LISTED]) or "(none)") + more


def json_type(value: Any) -> str:
    """The type of a value, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bytes: "bytes", bool: "true or false"}
    numbers = {int: "a number", float: "a number"}
    if value is None:
        return "null"
    return (names | numbers).get(type(value), f"a {type(value).__name__}")
