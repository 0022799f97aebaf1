"""Reads tables from .csv and .tsv files, whichever character separates the cells."""

import csv
import io
from collections.abc import Iterator

from hanse.data.formats.cells import listed
from hanse.data.formats.invalid_rows import Refusal, refuse
from hanse.data.formats.row import Record
from hanse.errors import UserError

LONGEST = 100  # characters of a column's name; longer cells in a header are texts
SEPARATORS = (",", ";", "\t", "|")  # European Excel writes semicolons


def records(text: str, name: str, refuse: Refusal = refuse) -> Iterator[Record]:
    """The rows below the header, without unnamed columns, such as the index of pandas.

    refuse: takes a row that has not as many cells as the header.
    Raises UserError with the line of a header that cannot be used.
    """
    header: list[str] = []
    separator = _separator(text)
    for number, cells in _lines(text, name, separator):
        place = f"{name}:{number}"
        if header:
            while len(cells) > len(header) and not cells[-1].strip():  # Excel writes empty ones
                cells.pop()
            if len(cells) == len(header):
                yield place, {key: cell for key, cell in zip(header, cells, strict=True) if key}
                continue
            fault = UserError(
                f"{place} has {len(cells)} columns, but the header has {len(header)}; put quotes "
                f"around cells that hold {separator!r} or line breaks."
            )
            refuse(place, fault)
        elif not cells[0].lower().startswith("sep="):  # a line that tells Excel the separator
            header = _header(cells, place)


def _header(cells: list[str], place: str) -> list[str]:
    """The names of the columns; raises UserError for names that cannot be used."""
    header = [cell.strip() for cell in cells]
    twice = [key for key in dict.fromkeys(header) if key and header.count(key) > 1]
    if twice:
        raise UserError(f"{place}: two columns have the same name, {listed(twice)}; rename one.")
    texts = [key for key in header if len(key) > LONGEST or "\n" in key]
    if texts:
        raise UserError(
            f"{place} should name the columns, but holds the text {texts[0]!r:.40}; put a line "
            "with the columns' names above it."
        )
    return header


def _separator(text: str) -> str:
    """The separator of the header's cells: the character that makes most cells."""
    first = text.lstrip("\n").partition("\n")[0]
    if first.lower().startswith("sep=") and first[4:5] in SEPARATORS:
        return first[4]
    # Parts between quotes are skipped: a quoted name may hold a separator.
    return max(SEPARATORS, key=lambda mark: sum(part.count(mark) for part in first.split('"')[::2]))


def _lines(text: str, name: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of cells that are not blank, each with the number of its first line of text."""
    # The csv module refuses cells over 128 KiB; its limit is one for the whole process.
    limit = csv.field_size_limit(2**31 - 1)
    # strict: otherwise a quote that is never closed takes in the rest of the file in silence.
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    first = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}:{first} is not valid CSV: {error}; check the quotes from there on."
        ) from None
    finally:
        csv.field_size_limit(limit)
