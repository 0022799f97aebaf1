"""Finds the data files in a folder, and those that only describe data."""

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from hanse.errors import UserError

SHOWN = 3  # most files that a remark names
# Files of `datasets`, of the hub and of LLaMA-Factory with endings that data have, too.
_DESCRIPTIONS = re.compile(r"(dataset_infos?|dataset_dict|state|croissant)\.json")
# Files in a folder that are no data of it; a user who names one of them by itself means its rows.
_BESIDE_DATA = re.compile(
    r"cache-.*\.arrow|(readme|licen[cs]e|copying|citation)\.json|"
    r"(readme|licen[cs]e|copying|citation|changelog|requirements)([-_.].*)?\.txt"
)
_DOCUMENTS = (".md", ".rst", ".py", "")  # endings of files that no one takes for data
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)  # errors of these


class Contents(NamedTuple):
    """The data files of a folder and of the folders below it, sorted, and files that are not read.

    descriptions: files that describe data. others: files whose endings are unknown.
    """

    data: list[Path]
    descriptions: list[Path]
    others: list[Path]


def contents(folder: Path, endings: Collection[str]) -> Contents:
    """The files in a folder and below it, without hidden ones; raises UserError if it is closed.

    endings: those of data files.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(str(error.filename), error)

    result = Contents([], [], [])
    for home, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        for name in names:
            path = Path(home, name)
            if name.startswith((".", "_SUCCESS")) or not path.is_file():
                continue
            if is_description(path) or _BESIDE_DATA.fullmatch(name.casefold()):
                result.descriptions.append(path)
            elif ending(path) in endings:
                result.data.append(path)
            elif path.suffix.lower() not in _DOCUMENTS:
                result.others.append(path)
    for files in result:
        files.sort()
    return result


def uncompressed(path: PurePath) -> PurePath:
    """A path without the ending of a compression: a.jsonl for a.jsonl.gz."""
    return path.with_suffix("") if path.suffix.lower() in DECOMPRESS else path


def ending(path: PurePath) -> str:
    """The ending of a file's name, without that of a compression: .jsonl of a.jsonl.gz."""
    return uncompressed(path).suffix.lower()


def is_description(path: PurePath) -> bool:
    """Tell if a file describes data and holds none, by its name, in whichever folder it lies."""
    return _DESCRIPTIONS.fullmatch(path.name.casefold()) is not None


def listed(files: Iterable[Path], folder: Path) -> str:
    """The names of the first files of a folder, as a phrase."""
    names = [path.relative_to(folder).as_posix() for path in files]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def unreadable(name: str, error: OSError) -> UserError:
    """The error for a file or a folder that the system does not let us read."""
    reason = (error.strerror or str(error)).lower()
    return UserError(f"{name} cannot be read: {reason}; check its permissions.")
