"""Reads and writes the records of a run folder: lines of .jsonl files, and whole .json files."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from hanse import atomic_files
from hanse.errors import UserError
from hanse.journal.records import ClientRecord
from hanse.tensors import json_text

T = TypeVar("T")

# The keys of a line of ledger.jsonl that a number of the same name must not replace.
_COLUMNS = frozenset(field.name for field in dataclasses.fields(ClientRecord)) - {"numbers"}


class RecordError(UserError):
    """A file or line of a run folder that is missing, or that does not hold what it must."""


def line(record: Any) -> bytes:
    """A record as one line of a .jsonl file; optional keys without a value are left out."""
    required = _required(type(record))  # type: ignore[arg-type]
    values = {
        name: value
        for name, value in vars(record).items()
        if name in required or (value is not None and value not in ("", (), {}))
    }
    if "round" in values:
        values = {"round": record.round, **values}  # first, for whoever reads the file
    if isinstance(record, ClientRecord):
        numbers = values.pop("numbers", {})
        values |= {name: value for name, value in numbers.items() if name not in _COLUMNS}
    return _encoded(values) + b"\n"


def write(file: Path, record: Any, indent: int | None = 2) -> None:
    """Write a record as a whole .json file."""
    atomic_files.write(file, _encoded(record, indent))


def append(file: Path, record: Any, private: bool = False) -> None:
    """Append a record to a .jsonl file durably, in place of a line that a killed writer left half.

    private: only the owner may ever read the file.
    """
    data = atomic_files.read(file) or b""
    if data and not data.endswith(b"\n"):
        atomic_files.write(file, data[: data.rfind(b"\n") + 1], private)
    atomic_files.append(file, line(record), private)


def parse(text: bytes, kind: type[T]) -> T:
    """The record of a JSON text; unknown keys are passed over. Raises ValueError with a reason."""
    values = json_text.parse_object(text)
    if kind is ClientRecord:
        numbers = {k: v for k, v in values.items() if k not in _COLUMNS and _is_number(v)}
        values = {k: v for k, v in values.items() if k in _COLUMNS} | {"numbers": numbers}
    try:
        record: T = _adapter(kind).validate_python(values)  # type: ignore[arg-type]
        return record
    except ValidationError as error:
        raise ValueError(_reason(error)) from None


def read(file: Path, kind: type[T]) -> T | None:
    """The record of a .json file; None if there is no such file.

    Raises RecordError if it is damaged, and UserError if the system refuses to read it.
    """
    if (data := atomic_files.read(file)) is None:
        return None
    try:
        return parse(data, kind)
    except ValueError as error:
        raise RecordError(f"{file} cannot be read: {error}; bring it back from a copy.") from None


def read_lines(file: Path, kind: type[T]) -> list[T]:
    """The records of a .jsonl file; a last line that is not ended is still being written.

    Raises RecordError with the number of the first line that is damaged.
    """
    records = []
    for number, text in enumerate(_lines(file)[:-1], 1):
        try:
            records.append(parse(text, kind))
        except ValueError as error:
            raise RecordError(
                f"{file}:{number} cannot be read: {error}; bring the file back from a copy."
            ) from None
    return records


def readable_lines(file: Path, kind: type[T]) -> tuple[list[T], int]:
    """The records of a .jsonl file that can be read, and how many lines cannot."""
    *lines, unfinished = _lines(file)
    records, damaged = [], int(bool(unfinished))
    for text in lines:
        try:
            records.append(parse(text, kind))
        except ValueError:
            damaged += 1
    return records, damaged


def _lines(file: Path) -> list[bytes]:
    """The lines of a file, and what stands after the last of them."""
    return (atomic_files.read(file) or b"").split(b"\n")


def _encoded(values: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8; half of a surrogate pair, which UTF-8 does not have, stays escaped."""
    text = json.dumps(values, ensure_ascii=False, indent=indent, default=vars)
    return text.encode(errors="backslashreplace")


@cache
def _required(kind: Any) -> frozenset[str]:
    """The keys without which a record of this kind is damaged."""
    missing = dataclasses.MISSING
    return frozenset(
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    )


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reason(error: ValidationError) -> str:
    """The first mistake in a record, from pydantic's error."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"the key {key} is missing"
    return f"{key} is {first['input']!r:.80}, and {first['msg'][:1].lower()}{first['msg'][1:]}"
