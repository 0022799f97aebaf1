"""A .txt file: one row, whole."""

from collections.abc import Iterator

from hanse.data.formats.row import Record


def records(text: str, name: str) -> Iterator[Record]:
    """The file as one record, without the line end that editors put last."""
    yield name, {"text": text.rstrip()}
