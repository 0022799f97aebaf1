"""Reads rows from a .jsonl or a .csv file, and says file and line of whatever is wrong."""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hanse.data.formats import Row, columns, row
from hanse.errors import UserError


def read(path: Path, name: str = "") -> list[Row]:
    """The rows of a file, which must be of one kind.

    name: how to call the file in messages, if not by its path.
    Raises UserError for an unknown ending, and with file and line for what cannot be read.
    """
    name = name or str(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{name} is a {path.suffix or 'file without an ending'!r}, but data are read from "
            f"{' or '.join(READERS)}; convert it."
        )
    rows = [row(record, place) for place, record in reader(_text(path, name), name)]
    if not rows:
        raise UserError(f"{name} holds no rows; give a file with at least one example.")
    first = rows[0]
    for other in rows:
        if other.kind != first.kind:
            raise UserError(
                f"{other.place} has {columns(other.kind)}, but {first.place} has "
                f"{columns(first.kind)}; one file holds one kind of rows, so split it in two."
            )
    return rows


def _text(path: Path, name: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{name} cannot be read: {reason}; check its permissions.") from None
    content = content.removeprefix(codecs.BOM_UTF8)  # which Excel and Notepad put in front
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}:{line} is not UTF-8; save the file as UTF-8.") from None


def _jsonl(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{place} is not valid JSON at character {error.colno}: {error.msg.lower()}; "
                "write one JSON object a line."
            ) from None
        except RecursionError:
            raise UserError(
                f"{place} is nested too deeply; write one flat object a line."
            ) from None
        except ValueError:  # Python refuses to read an integer of more than 4300 digits
            raise UserError(
                f"{place} holds a number with too many digits; write it as text in quotes."
            ) from None
        if not isinstance(record, dict):
            raise UserError(
                f"{place} holds a {type(record).__name__}, not an object; write one JSON object "
                'a line, such as {"text": "…"}.'
            )
        yield place, record


def _csv(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    header: list[str] = []
    for number, cells in _csv_records(text, name):
        place = f"{name}:{number}"
        if not header:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                raise UserError(f"{place}: two columns have the same name; rename one.")
        elif len(cells) != len(header):
            raise UserError(
                f"{place} has {len(cells)} columns, but the header has {len(header)}; put "
                "quotes around cells with commas or line breaks."
            )
        else:
            yield place, dict(zip(header, cells, strict=True))


def _csv_records(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the number of its first line."""
    # The csv module refuses cells over 128 KiB unless told otherwise, for the whole process.
    former = csv.field_size_limit(2**31 - 1)
    # strict: otherwise a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
        csv.field_size_limit(former)


READERS: dict[str, Callable[[str, str], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
}
