"""Checkpoints: the state of the server after a round, in one file."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.tensors.named import strip_prefix
from hanse.tensors.serialization import Groups, MessageError, unpack

KEPT = 2  # checkpoints: the newest, and the one before it in case that one is damaged
_CHECKPOINT = re.compile(r"(\d{5,})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round: the server's tensors by group, and whose memory is of which.

    constants: the hash of the adapter's constants; empty if it has none. holding: who has them.
    """

    round: int
    groups: Groups
    counted: dict[str, int] = field(default_factory=dict)
    constants: str = ""
    holding: frozenset[str] = frozenset()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run."""
    return [
        file for file in atomic_files.listed(folder / "state") if _CHECKPOINT.fullmatch(file.name)
    ]


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, which may be in progress; nothing is changed."""
    found = (read_checkpoint(file) for file in sorted(checkpoints(folder), reverse=True))
    return next((checkpoint for checkpoint in found if checkpoint is not None), None)


def read_checkpoint(file: Path) -> Checkpoint | None:
    """A checkpoint; None if it is gone, or if its content is not what its name's hash says."""
    match = _CHECKPOINT.fullmatch(file.name)
    data = atomic_files.read(file)
    if match is None or data is None or hashlib.sha256(data).hexdigest() != match[2]:
        return None
    try:
        header, numbers, groups = unpack(data, "checkpoint")
    except MessageError:
        return None
    counted = {name: int(value) for name, value in strip_prefix(numbers, "counted/").items()}
    known = header.get("constants", ""), frozenset(strip_prefix(numbers, "holding/"))
    return Checkpoint(int(numbers["round"]), groups, counted, *known)
