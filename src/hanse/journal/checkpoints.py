"""Checkpoints: the state of the server after a round, in one file."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.tensors.named import strip_prefix
from hanse.tensors.serialization import Groups, MessageError, parts, unpack

CHECKPOINTS_KEPT = 2  # the newest, and the one before it in case that one is damaged
STATE = "state"  # the folder of checkpoints in a run folder
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The server's state after a round.

    groups: tensors by group. counted: by client, the last round whose memory it must have.
    constants: the hash of the adapter's constants; empty if it has none.
    holding: the clients that have the constants.
    """

    round: int
    groups: Groups
    counted: dict[str, int] = field(default_factory=dict)
    constants: str = ""
    holding: frozenset[str] = frozenset()

    def pack(self) -> bytes:
        """This checkpoint as bytes."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes | memoryview]:
        """The same in parts, which share the memory of the tensors."""
        numbers = {"round": self.round}
        numbers |= {f"counted/{name}": round for name, round in self.counted.items()}
        numbers |= {f"holding/{name}": 1 for name in sorted(self.holding)}
        header = {"message": "checkpoint", "kind": "state", "constants": self.constants}
        return parts(header, numbers, self.groups)

    @staticmethod
    def parse(data: bytes) -> "Checkpoint":
        """The checkpoint in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "checkpoint")
        counted = {name: int(value) for name, value in strip_prefix(numbers, "counted/").items()}
        known = header.get("constants", ""), frozenset(strip_prefix(numbers, "holding/"))
        return Checkpoint(int(numbers["round"]), groups, counted, *known)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run."""
    files = atomic_files.hashed(folder / STATE, SUFFIX)
    return [file for name, file in files if re.fullmatch(r"\d{5,}", name)]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a run folder in one rename; the oldest ones are removed."""
    file = folder / STATE / f"{checkpoint.round:05d}{SUFFIX}"
    atomic_files.write_hashed(file, checkpoint.parts())
    for old in sorted(checkpoints(folder))[:-CHECKPOINTS_KEPT]:
        old.unlink()


def latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, which may be in progress; no file is changed."""
    newest_first = map(read_checkpoint, sorted(checkpoints(folder), reverse=True))
    return next((checkpoint for checkpoint in newest_first if checkpoint is not None), None)


def read_checkpoint(file: Path) -> Checkpoint | None:
    """The checkpoint in a file; None if the file is gone or damaged."""
    try:
        data = atomic_files.read_hashed(file)
        return None if data is None else Checkpoint.parse(data)
    except (atomic_files.DamagedError, MessageError):
        return None
