"""Claims on run folders: one process makes a folder, and one process at a time works in it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hanse import atomic_files
from hanse.errors import UserError, explained

LOCK = ".lock"
MARKS = (
    "experiment.yaml",
    "baselines.yaml",
)  # what makes a folder a run's or a baseline comparison's
# A run's folder has at least one of these; a folder with only an experiment of that name has none.
LEFT = (LOCK, "baselines.json", "machine.json", "metrics.jsonl", "state", "adapter")
BEFORE = (LOCK, "baselines.json", "machine.json")  # written before a mark


class TakenError(UserError):
    """A folder is there already, or another process works in it."""


@dataclass(frozen=True)
class Claim:
    """A folder in which this process alone works, until the claim is closed."""

    folder: Path
    _lock: IO[bytes]

    def close(self) -> None:
        """Let other processes work in the folder."""
        self._lock.close()

    def give_up(self) -> None:
        """Close it; a folder that holds no run and no baseline comparison is free again."""
        try:
            if not any((self.folder / name).exists() for name in MARKS):
                with contextlib.suppress(OSError):  # not empty, or claimed by another process
                    for name in reversed(BEFORE):
                        (self.folder / name).unlink(missing_ok=True)
                    self.folder.rmdir()
        finally:
            self.close()


def is_left(file: Path) -> bool:
    """True for the experiment that a run or a baseline comparison has written into its folder."""
    return any(
        place.name in MARKS and any(os.path.lexists(place.parent / name) for name in LEFT)
        for place in (file, file.resolve())
    )


def claim(folder: Path) -> Claim:
    """Claim an existing folder; the parts that killed processes have left in it are removed.

    Raises TakenError if another process works in it, and UserError if it cannot be written, or if
    it has symbolic links, through which files elsewhere would be changed.
    """
    try:
        held = atomic_files.lock(folder / LOCK)
    except OSError as error:
        raise UserError(
            f"{folder} is no run folder that can be written: {error.strerror}."
        ) from None
    if held is None:
        raise TakenError(f"another process is working on {folder}; wait for it.")
    try:
        _refuse_links(folder)
        atomic_files.sweep(folder)
    except BaseException:
        held.close()
        raise
    return Claim(folder, held)


def reserve(folder: Path) -> Claim:
    """Make a new folder, which is this process's from the first moment on.

    Raises TakenError for one that is there, unless a process that was killed has left it empty.
    """
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            _refuse_taken(folder)
    claimed = claim(folder)
    try:
        _refuse_taken(folder)  # by another process, which has ended meanwhile
    except TakenError:
        claimed.close()
        raise
    return claimed


@contextmanager
def reserved(names: Callable[[int], Path]) -> Iterator[Claim]:
    """The first new folder of names(1), names(2), …; free again if the block fails too early.

    The claim outlives the block. A name that comes twice in a row ends the search.
    """
    number = 1
    while True:
        try:
            claimed = reserve(names(number))
            break
        except TakenError:
            if names(number + 1) == names(number):
                raise
            number += 1
    try:
        yield claimed
    except BaseException:
        claimed.give_up()
        raise


def _refuse_taken(folder: Path) -> None:
    """Raise TakenError for a folder in which more lies than what comes before a run."""
    if folder.is_dir() and all(map(_is_before, os.listdir(folder))):
        return
    run = any((folder / name).is_file() for name in MARKS)
    other = f", or continue that run with `hanse resume {folder}`" if run else ""
    raise TakenError(f"{folder} exists; choose another output_dir{other}.")


def _is_before(name: str) -> bool:
    """True for a file that is written before a mark, and for parts of killed processes."""
    parts = tuple(f".{first}." for first in (*MARKS, *BEFORE))
    return name in BEFORE or (name.startswith(parts) and name.endswith(".part"))


def _refuse_links(folder: Path) -> None:
    """Raise UserError for symbolic links where a run's files are written."""
    for place in (*atomic_files.listed(folder), *atomic_files.listed(folder / "clients")):
        if place.is_symlink():
            raise UserError(
                f"{place} is a symbolic link, and what a run writes must stay in its folder; put "
                "what it points to in its place."
            )
