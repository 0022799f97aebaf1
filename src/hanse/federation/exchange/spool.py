"""Messages on disk, which are read in parts."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hanse.errors import explained
from hanse.federation.messages import Reply, Update
from hanse.tensors.lazy import Lazy
from hanse.tensors.serialization import Content

SHORT = 16_384  # bytes; a shorter message stays in memory


@dataclass
class _File:
    """A file without a name: nobody else can open it, and it ends with the last use of it."""

    number: int = field(init=False)
    size: int = 0

    def __post_init__(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            self.number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.number)

    def append(self, data: bytes | memoryview) -> None:
        """Write behind what is there; raises UserError if the disk is full."""
        left = memoryview(data)
        while left:
            with explained(Path(tempfile.gettempdir())):
                written = os.pwrite(self.number, left, self.size)
            self.size, left = self.size + written, left[written:]


@dataclass(frozen=True, eq=False)
class Stored:
    """The bytes of a message in a file; a slice is read when it is asked for."""

    file: _File
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytearray:
        first, last, _ = part.indices(self.length)
        data = bytearray(max(0, last - first))
        left, start = memoryview(data), self.start + first
        while left:
            if not (count := os.preadv(self.file.number, [left], start)):
                raise EOFError("a message on disk has become shorter")
            left, start = left[count:], start + count
        return data


class Spool:
    """Keeps messages in a file, which ends when none of its messages is in use any more.

    The place of a message is not reused, so the file grows until then.
    """

    def __init__(self) -> None:
        self._file: weakref.ref[_File] | None = None

    def keep(self, message: Content) -> Content:
        """The same message on disk; a short one, and one that is on disk already, is unchanged."""
        return self.write([message]) if isinstance(message, bytes) else message

    def write(self, parts: Iterable[bytes | memoryview]) -> Content:
        """The message of these parts on disk, or in memory if it is short."""
        parts = [*parts]
        length = sum(memoryview(part).nbytes for part in parts)
        if length < SHORT:
            return b"".join(parts)
        file = (self._file and self._file()) or _File()
        self._file = weakref.ref(file)
        start = file.size
        for part in parts:
            file.append(part)
        return Stored(file, start, length)


def on_disk(update: Update, spool: Spool) -> Update:
    """The same update, in the same order, with tensors that are on disk until they are asked for.

    Messages have their tensors by name, and what draws noise on an aggregate goes by the order.
    """
    if isinstance(update.tensors, Lazy):
        return update
    stored = Reply.parse(spool.write(Reply("", "", 0, update).parts())).update
    return replace(stored, tensors=Lazy(update.tensors, stored.tensors.__getitem__))
