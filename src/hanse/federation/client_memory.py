"""A client's memory: a draft until the server says that the round was counted.

Without drafts a late or lost reply would break error feedback and control variates: the client
would build on an update that the server never used.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError, explained
from hanse.federation.interfaces.results import Memory
from hanse.tensors.serialization import MessageError, parts, unpack

MEMORIES_KEPT = 2  # counted rounds; the server may fall back by one after a damaged checkpoint
SUFFIX = ".safetensors"
_NAME = re.compile(r"round-(\d{5,})")


class LostMemory(UserError):  # noqa: N818 (the condition, not an error of the user's)
    """The memory of a counted round is missing or damaged; continuing would change the result."""


@dataclass(frozen=True)
class MemoryStore:
    """One client's memory on disk: one file for each round, with the content's hash in its name."""

    folder: Path

    def open(self, counted: int) -> dict[str, Memory]:
        """The memory after the last counted round, by part; drafts of later rounds are dropped.

        counted: the last counted round with a memory, or 0.
        Raises LostMemory if that round's memory is not whole, and UserError if the system refuses
        to read it; then nothing is dropped.
        """
        memory = self.look(counted)  # first: nothing is removed if this one cannot be read
        files = self._files()
        counted_rounds = [round for round in sorted(files) if round <= counted]
        for round in files.keys() - set(counted_rounds[-MEMORIES_KEPT:]):
            with explained(files[round]):
                files[round].unlink(missing_ok=True)
        return memory

    def look(self, counted: int) -> dict[str, Memory]:
        """The same, but nothing is dropped: for requests that follow a round's training."""
        if counted == 0:
            return {}
        file = self._files().get(counted)
        memory = _read(file) if file else None
        if memory is None:
            raise LostMemory(
                f"the client's memory of round {counted} is missing in {self.folder}; "
                "bring it back from a copy, or begin a new run."
            )
        return memory

    def digest(self, counted: int) -> str:
        """The SHA-256 in hex of the memory that `look` finds; empty for round 0."""
        file = self._files().get(counted) if counted else None
        return file.stem.rpartition("-")[2] if file else ""

    def draft(self, round: int, memory: dict[str, Memory]) -> bool:
        """Write the memory that holds if this round is counted; return whether there is one.

        A client without memory writes no file, and its reply says so, since the server must not
        ask for one later. A missing file therefore always means a lost memory.
        """
        groups = {part: tensors for part, tensors in memory.items() if tensors}
        if not groups and not self._files():  # an empty memory must replace one that exists
            return False
        data = parts({"message": "memory", "kind": "client"}, {}, groups)
        atomic_files.write_hashed(self.folder / f"round-{round:05d}{SUFFIX}", data, private=True)
        return True

    def _files(self) -> dict[int, Path]:
        """The memory files by round."""
        files = atomic_files.hashed(self.folder, SUFFIX)
        matches = ((_NAME.fullmatch(name), file) for name, file in files)
        return {int(match[1]): file for match, file in matches if match}


def _read(file: Path) -> dict[str, Memory] | None:
    """The memory in a file; None if the file is gone. Raises LostMemory if it is damaged."""
    try:
        data = atomic_files.read_hashed(file)
        return None if data is None else unpack(data, "memory")[2]
    except (atomic_files.DamagedError, MessageError) as error:
        raise LostMemory(
            f"the client's memory in {file} cannot be used: {error}; "
            "bring it back from a copy, or begin a new run."
        ) from None
