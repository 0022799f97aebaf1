"""What a client remembers: a draft until the server says that its round was counted.

Otherwise a late or lost reply would break what rests on memory (error feedback, control
variates): the client would believe in an update that the server never used.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hanse import storage
from hanse.errors import UserError
from hanse.messages import MessageError, pack, unpack
from hanse.values import Memory

KEPT = 2  # counted memories kept: the server may fall back by one round after a damaged checkpoint
_NAME = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True)
class MemoryStore:
    """One client's memory on disk: one file for each round in which it changed."""

    folder: Path

    def open(self, counted: int) -> dict[str, Memory]:
        """What the client knew after its last counted round, by part; drafts after it are dropped.

        counted: the last round of this client that the server has used, 0 for none.
        """
        rounds = self._rounds()
        for round in rounds:
            if round > counted:
                self._file(round).unlink()
        kept = [round for round in rounds if round <= counted]
        for round in kept[:-KEPT]:
            self._file(round).unlink()
        return self.look(counted)

    def look(self, counted: int) -> dict[str, Memory]:
        """The same, but nothing is dropped: for requests that come after a round's training."""
        if counted not in self._rounds():
            return {}  # the client kept nothing in that round
        return self._read(counted)

    def draft(self, round: int, memory: dict[str, Memory]) -> None:
        """Write what the client would know if this round is counted."""
        groups = {part: tensors for part, tensors in memory.items() if tensors}
        if groups:
            storage.write(
                self._file(round), pack({"message": "memory", "kind": "client"}, {}, groups)
            )

    def _read(self, round: int) -> dict[str, Memory]:
        try:
            _, _, groups = unpack(self._file(round).read_bytes(), "memory")
        except MessageError as error:
            raise UserError(
                f"the client's memory {self._file(round)} is damaged: {error}."
            ) from None
        result: dict[str, dict[str, Tensor]] = groups
        return result

    def _rounds(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _file(self, round: int) -> Path:
        return self.folder / f"round-{round:05d}.safetensors"
