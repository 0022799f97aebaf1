"""What a client remembers: a draft until the server says that its round was counted.

Otherwise a late or lost reply would break what rests on memory (error feedback, control
variates): the client would believe in an update that the server never used.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.federation.interfaces.results import Memory
from hanse.tensors.serialization import MessageError, pack, unpack

MEMORIES_KEPT = (
    2  # counted memories kept: the server may fall back by one round after a damaged checkpoint
)
_NAME = re.compile(r"round-(\d{5,})-([0-9a-f]{64})\.safetensors")


class LostMemory(UserError):  # noqa: N818 (said of what happened)
    """A client's memory of a counted round is gone or damaged; going on would change the result."""


@dataclass(frozen=True)
class MemoryStore:
    """One client's memory on disk: one file a round, whose name carries its content's hash."""

    folder: Path

    def open(self, counted: int) -> dict[str, Memory]:
        """What the client knew after its last counted round, by part; drafts after it are dropped.

        counted: the last round that the server has used and of which there is a memory, or 0.
        Raises LostMemory if that round's memory is not whole, and UserError if the system refuses
        to read it; then nothing is dropped.
        """
        known = self.look(counted)  # first: nothing is removed if this one cannot be read
        files = self._files()
        kept = [round for round in sorted(files) if round <= counted]
        for round in files.keys() - set(kept[-MEMORIES_KEPT:]):
            with atomic_files.explained(files[round]):
                files[round].unlink(missing_ok=True)
        return known

    def look(self, counted: int) -> dict[str, Memory]:
        """The same, but nothing is dropped: for requests that come after a round's training."""
        if counted == 0:
            return {}
        file = self._files().get(counted)
        data = atomic_files.read(file) if file else None
        if file is None or data is None:
            raise LostMemory(
                f"the client's memory of round {counted} is missing in {self.folder}; "
                "bring it back from a copy, or begin a new run."
            )
        return _parsed(file, data)

    def draft(self, round: int, memory: dict[str, Memory]) -> bool:
        """Write what the client would know if this round is counted; whether there is anything.

        Who remembers nothing needs no file, and the server must not ask for one. It knows from the
        reply: if missing files stood for nothing, none could ever be missed.
        """
        groups = {part: tensors for part, tensors in memory.items() if tensors}
        if not groups and not self._files():  # what there is must be followed by nothing
            return False
        data = pack({"message": "memory", "kind": "client"}, {}, groups)
        name = f"round-{round:05d}-{hashlib.sha256(data).hexdigest()}.safetensors"
        atomic_files.write(self.folder / name, data, private=True)
        return True

    def _files(self) -> dict[int, Path]:
        """The files there are, by round."""
        found = atomic_files.listed(self.folder)
        matches = ((_NAME.fullmatch(path.name), path) for path in found)
        return {int(match[1]): path for match, path in matches if match}


def _parsed(file: Path, data: bytes) -> dict[str, Memory]:
    try:
        if hashlib.sha256(data).hexdigest() not in file.name:
            raise MessageError("its content is not what its name's hash says")
        return unpack(data, "memory")[2]
    except MessageError as error:
        raise LostMemory(
            f"the client's memory {file} is damaged: {error}; "
            "bring it back from a copy, or begin a new run."
        ) from None
