"""The error message for a record whose columns fit no format."""

import re
from collections.abc import Mapping
from typing import Any

from hanse.data.formats.cells import listed
from hanse.registry import suggestion


def misfit(record: Mapping[str, Any], named: Mapping[str, str], known: str) -> str:
    """The message, with settings that would read the record.

    named: part → column, as in `data.columns`. known: the formats, as a phrase.
    """
    for part, column in named.items():
        if column not in record:
            return (
                f"data.columns takes {part} from {column!r}, which is not there"
                f"{suggestion(column, record)}; there are {listed(record)}."
            )
    # The examples have names that YAML takes without quotes.
    plain = [name for name in record if re.fullmatch(r"[^\W\d][\w .-]*", name)]
    first = "" if len(plain) == len(record) else " (the first line of a table names its columns)"
    columns = f"the columns {listed(record)} fit no known format{first}"
    texts = [name for name in plain if isinstance(record[name], str)]
    objects = [name for name in record if isinstance(record[name], dict)]
    if objects and not texts:
        return (
            f"{columns}; {objects[0]!r} holds an object with the keys "
            f"{listed(record[objects[0]])}; write each of them as a column of its own."
        )
    return f"{columns}; known are {known}; say which column is which, {_example(record, texts)}."


def _example(record: Mapping[str, Any], texts: list[str]) -> str:
    """The setting that learns the longest text, and the one that learns a text from another."""
    longest = max(texts, key=lambda name: len(record[name]), default="…")
    alone = f"such as data.columns: {{text: {longest:.40}}}"
    if len(texts) < 2:
        return alone
    question, answer = texts[:2]
    return f"{alone}, or {{instruction: {question:.40}, output: {answer:.40}}}"
