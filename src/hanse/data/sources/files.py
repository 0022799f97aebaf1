"""Reads records from a file or a folder of files, by the ending of each."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

from hanse.data.formats.row import Record
from hanse.data.sources.readers import csv, encoding, json, parquet, text
from hanse.data.sources.split_files import TRAIN, beside_splits, layout
from hanse.errors import UserError
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

TEXTUAL: dict[str, Callable[[str, str], Iterator[Record]]] = {
    ".jsonl": json.lines,
    ".ndjson": json.lines,
    ".json": json.records,
    ".csv": csv.records,
    ".tsv": csv.records,
    ".txt": text.records,
}
ENDINGS = (*TEXTUAL, ".parquet")


def records(path: Path, name: str = "", split: str = TRAIN) -> Iterator[Record]:
    """The records of a file, or of all data files in a folder, each with its place.

    name: how to call the file in messages, if not by its path.
    split: of a folder whose files are named after splits, those of this one are read.
    In a folder every record gets the fields `file`, the name without its ending, and `folder` if
    there are folders in it: `key` can deal by them, and pos/ and neg/ may be labels.
    Raises UserError with file and line for what cannot be read.
    """
    name = name or str(path)
    if path.is_dir():
        yield from _folder(path, split)
        return
    former: list[str] = []
    try:
        yield from track(_file(path, name, former), Work(Activity.READING_FILE, name))
    finally:
        _tell(former)


def splits(folder: Path) -> Mapping[str | None, list[Path]]:
    """The files of each split in a folder, under None those of no split; empty without splits."""
    # Not Path.is_dir, which raises for a name that is too long.
    return layout(folder, _below(folder)) if os.path.isdir(folder) else {}


def _folder(folder: Path, split: str) -> Iterator[Record]:
    files, named = _of_split(folder, split)
    homes = {file: PurePath(file.relative_to(folder)).parent for file in files}
    if named:
        homes = {file: beside_splits(home) for file, home in homes.items()}
    nested = any(home.parts for home in homes.values())
    former: list[str] = []
    try:
        for file in track(files, Work(Activity.READING_FILE, str(folder), total=len(files))):
            where = {"file": file.stem}
            if nested:
                where["folder"] = homes[file].as_posix()
            empty = True
            for place, record in _file(file, str(file), former):
                empty = False
                yield place, {**where, **record}
            if empty:
                raise UserError(f"{file} holds no rows; take it out of {folder}.")
    finally:
        _tell(former)


def _of_split(folder: Path, split: str) -> tuple[list[Path], bool]:
    """A folder's files of one split, and whether they are named after splits at all."""
    files = _below(folder)
    if not files:
        raise UserError(
            f"{folder} holds no data: files that end in {', '.join(ENDINGS)} are looked for in it "
            "and below; name another folder, or a file."
        )
    found = layout(folder, files)
    if found and split not in found:
        there = ", ".join(name for name in found if name)
        raise UserError(
            f"{folder} has no files of the split {split}, only of {there}; name another file or "
            f"folder in data.{split}, or how many rows to hold out."
        )
    return (found[split], True) if found else (files, False)


def _below(folder: Path) -> list[Path]:
    """The data files in a folder and in those below it, sorted; hidden ones are left out."""

    def refuse(error: OSError) -> None:
        raise _unreadable(str(error.filename), error)

    found = []
    for home, inner, files in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        found += [
            Path(home, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS
        ]
    return sorted(path for path in found if path.is_file())


def _file(path: Path, name: str, former: list[str]) -> Iterator[Record]:
    """The records of one file; a note is added to `former` if it is of a former encoding."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(
            f"{name} is a {path.suffix or 'file without an ending'!r}, but data are read from "
            f"{', '.join(ENDINGS)}; convert it."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from None
    if ending == ".parquet":
        yield from parquet.records(content, name)
        return
    words, line = encoding.decode(content, name)
    if line:
        former.append(encoding.note(name, line))
    yield from TEXTUAL[ending](words, name)


def _tell(former: list[str]) -> None:
    """One warning for all files of a former encoding."""
    if former:
        more = f"; so are {len(former) - 1} more files beside it" if former[1:] else ""
        log.warning("%s%s", former[0], more)


def _unreadable(name: str, error: OSError) -> UserError:
    reason = (error.strerror or str(error)).lower()
    return UserError(f"{name} cannot be read: {reason}; check its permissions.")
