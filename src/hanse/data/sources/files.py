"""Reads records from a file or a folder of files; the ending of a file tells its format."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from hanse.data.formats.invalid_rows import Refusal, refuse
from hanse.data.formats.row import Record
from hanse.data.sources.folders import (
    DAMAGED,
    DECOMPRESS,
    Contents,
    contents,
    ending,
    is_description,
    listed,
    uncompressed,
    unreadable,
)
from hanse.data.sources.readers import arrow, csv, encoding, json, parquet
from hanse.data.sources.readers import text as plain_text
from hanse.data.sources.readers.class_names import NO_CLASSES, ClassSettings
from hanse.data.sources.split_files import (
    TEST,
    TRAIN,
    VALIDATION,
    is_shard,
    layout,
    split_of,
    without_splits,
)
from hanse.errors import UserError
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

READERS: dict[str, Callable[[str, str, Refusal], Iterator[Record]]] = {
    ".jsonl": json.lines,
    ".ndjson": json.lines,
    ".json": json.records,
    ".csv": csv.records,
    ".tsv": csv.records,
    ".txt": plain_text.records,
}
TABLES: dict[str, Callable[[bytes, str, ClassSettings], Iterator[Record]]] = {
    ".parquet": parquet.records,
    ".arrow": arrow.records,
}
ENDINGS = (*READERS, *TABLES)
Notes = dict[str, list[str]]  # by encoding: notes on files that are not UTF-8


@dataclass(frozen=True)
class Options:
    """Options for reading files.

    refuse: takes a row that cannot be read, with its place and the fault.
    remark: takes a sentence on what is guessed or not read.
    encoding: of files without a byte-order mark; empty: UTF-8, or a guess if a file is not.
    classes: the values of classes in the settings, by which tables have their names or numbers.
    """

    refuse: Refusal = refuse
    remark: Callable[[str], None] = log.warning
    encoding: str = ""
    classes: ClassSettings = NO_CLASSES


USUAL = Options()


def records(
    path: Path, name: str = "", split: str = TRAIN, options: Options = USUAL
) -> Iterator[Record]:
    """The records of a file, or of all data files in a folder, each with its place.

    name: of the file in messages; empty: its path.
    split: if a folder's files are named after splits, only those of this split are read.
    Records of a folder get the fields `file`, the file's name without its ending, and `folder` if
    there are folders in it; the partitioner `key` can deal by them, and they can be labels.
    Raises UserError with file and line for content that cannot be read.
    """
    name = name or str(path)
    if path.is_dir():
        yield from _folder(path, split, options)
        return
    notes: Notes = {}
    try:
        yield from track(_file(path, name, options, notes), Work(Activity.READING_FILE, name))
    finally:
        _tell(notes, options)


def splits(folder: Path) -> Mapping[str | None, list[Path]]:
    """The files of each split in a folder, and under None the others; empty without splits."""
    # Path.is_dir raises for a name that is too long; os.path.isdir does not.
    return layout(folder, contents(folder, ENDINGS).data) if os.path.isdir(folder) else {}


def beside(file: Path) -> dict[str, Path]:
    """The files for test and validation beside a file that is named for training, by the split."""
    name = PurePath(file.name)
    if split_of(name) != TRAIN or is_shard(file.name) or not os.path.isfile(file):
        return {}
    try:
        neighbours = sorted(file.parent.iterdir())
    except OSError:  # a folder may let its files be read, but not be listed
        return {}
    result: dict[str, Path] = {}
    for path in neighbours:
        split = split_of(PurePath(path.name))
        if split in (TEST, VALIDATION) and ending(path) == ending(file):
            result.setdefault(split, path)
    return result


def _folder(folder: Path, split: str, options: Options) -> Iterator[Record]:
    """The records of one split of a folder, with the fields `file` and `folder`."""
    content = contents(folder, ENDINGS)
    files, named = _of_split(folder, content.data, split)
    _remark_on_unread(folder, content, options.remark)
    home = without_splits if named else PurePath
    homes = {file: home(PurePath(file.relative_to(folder)).parent) for file in files}
    nested = any(home.parts for home in homes.values())
    notes: Notes = {}
    try:
        for file in track(files, Work(Activity.READING_FILE, str(folder), total=len(files))):
            source = {"file": uncompressed(file).stem}
            if nested:
                source["folder"] = homes[file].as_posix()
            read = Counter[str]()
            for place, record in _file(file, str(file), _counting(options, read), notes):
                read["rows"] += 1
                yield place, {**source, **record}
            if not read:
                raise UserError(f"{file} holds no rows; take it out of {folder}.")
    finally:
        _tell(notes, options)


def _counting(options: Options, read: Counter[str]) -> Options:
    """The same options, which count the refused rows of a file, too."""

    def refuse(place: str, fault: UserError) -> None:
        read["refused"] += 1
        options.refuse(place, fault)

    return replace(options, refuse=refuse)


def _of_split(folder: Path, files: list[Path], split: str) -> tuple[list[Path], bool]:
    """A folder's files of one split, and True if they are named after splits."""
    if not files:
        raise UserError(
            f"{folder} holds no data: neither it nor the folders in it have files that end in "
            f"{', '.join(ENDINGS)}; name another folder, or a file."
        )
    by_split = layout(folder, files)
    if by_split and split not in by_split:
        names = ", ".join(name for name in by_split if name)
        raise UserError(
            f"{folder} has no files of the split {split}, only of {names}; name another file or "
            f"folder in data.{split}, or the number of rows to hold out."
        )
    return (by_split[split], True) if by_split else (files, False)


def _remark_on_unread(folder: Path, contents: Contents, remark: Callable[[str], None]) -> None:
    """Remark on the files in a folder that are not read, with the reason."""
    if contents.descriptions:
        names = listed(contents.descriptions, folder)
        remark(f"{folder}: not read: {names}, named like files that describe data.")
    if contents.others:
        names = listed(contents.others, folder)
        remark(f"{folder}: not read: {names}; data are read from {', '.join(ENDINGS)}.")


def _file(path: Path, name: str, options: Options, notes: Notes) -> Iterator[Record]:
    """The records of one file; adds a note to `notes` if its encoding is a guess."""
    kind = ending(path)
    if kind not in ENDINGS:
        raise UserError(
            f"{name} is a {path.suffix or 'file without an ending'!r}, but data are read from "
            f"{', '.join(ENDINGS)}; convert it."
        )
    if is_description(path):
        raise UserError(f"{name} describes data and holds none; name the data file or the folder.")
    content = _content(path, name)
    if kind in TABLES:
        yield from TABLES[kind](content, name, options.classes)
        return
    text, guess = encoding.decode(content, name, options.encoding)
    if guess:
        notes.setdefault(guess.encoding, []).append(encoding.note(name, guess))
    yield from READERS[kind](text, name, options.refuse)


def _content(path: Path, name: str) -> bytes:
    """The bytes of a file, without its compression; raises UserError if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(name, error) from None
    if content.startswith(b"version https://git-lfs.github.com/"):
        raise UserError(
            f"{name} is a pointer of Git LFS, not the data; run `git lfs pull` in its folder."
        )
    if decompress := DECOMPRESS.get(path.suffix.lower()):
        try:
            return decompress(content)
        except DAMAGED as error:
            raise UserError(
                f"{name} cannot be decompressed: {error}; compress the file again."
            ) from None
    return content


def _tell(notes: Notes, options: Options) -> None:
    """Remark once for each encoding on the files that are not UTF-8."""
    for first, *others in notes.values():
        more = f"; the same holds for {len(others)} more files beside it" if others else ""
        options.remark(f"{first}{more}.")
