"""Reads a .txt file as one row."""

from collections.abc import Iterator

from hanse.data.formats.invalid_rows import Refusal, refuse
from hanse.data.formats.row import Record


def records(text: str, name: str, refuse: Refusal = refuse) -> Iterator[Record]:
    """The file as one record, without white space at its end."""
    yield name, {"text": text.rstrip()}
