"""The files that the clients of one machine were sent, in files named by their hash."""

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hanse import atomic_files
from hanse.content_hash import content_hash, keep_hash
from hanse.errors import UserError, explained
from hanse.federation.delivery.files import HELD, Chunk, OfferedFile, chunk, offered
from hanse.federation.messages import Request, Update

log = logging.getLogger(__name__)

PART = ".part"  # after the hash of a file that is not complete yet
RESERVE = 256 * 2**20  # bytes that stay free on the disk


class MissingFile(UserError):  # noqa: N818 (the condition, not an error of the user's)
    """A file of the run is not on this machine; the server must send it again."""

    def __init__(self, name: str, digest: str) -> None:
        super().__init__(f"the file {name} of this run is no longer here.")
        self.digest = digest


class FullDiskError(UserError):
    """The disk has too little space for what the server sends."""


@dataclass
class FileStore:
    """Files on disk that servers have sent; the clients of one machine share them.

    Only their owner may read them.

    most: how many bytes of other runs' files are kept, the newest first; None: all.
    """

    folder: Path
    most: int | None = None
    _mismatches: Counter[str] = field(default_factory=Counter)  # by hash

    def find(self, files: Mapping[str, str]) -> dict[str, Path]:
        """The paths of files by name. files: their hashes. Raises MissingFile if one is missing."""
        for name, digest in files.items():
            if not self._is_complete(digest):
                raise MissingFile(name, digest)
        return {name: self._file(digest) for name, digest in files.items()}

    def take(self, request: Request) -> Update:
        """Keep the chunk in a request, if there is one; return how many bytes are here.

        Raises UserError, and keeps nothing of the request, if it breaks the protocol, and
        FullDiskError if the disk is too full.
        """
        files = offered(request)
        part = chunk(request, files)
        if part is None:
            self._prune({file.digest for file in files})
        self._refuse_full(files)
        if part is not None:
            self._append(part)
        held = [self._held(file) for file in files]
        return Update({HELD: torch.tensor(held, dtype=torch.int64)})

    def _append(self, part: Chunk) -> None:
        """Append a chunk to its file; one that came before, or in an interrupted write, is not."""
        file, end = part.file, part.offset + len(part.data)
        held = self._held(file)
        if end > file.size:
            raise UserError(
                f"the server sent bytes of {file.name} up to {end:,}, and had announced "
                f"{file.size:,}; nothing of them was kept."
            )
        if part.offset > held:
            raise UserError(
                f"the server sent bytes of {file.name} from {part.offset:,} on, and {held:,} are "
                "here; nothing of them was kept."
            )
        if part.offset == held:
            atomic_files.append(self._part(file.digest), part.data.numpy().data, private=True)

    def _held(self, file: OfferedFile) -> int:
        """The bytes of a file that are here; a finished one is checked and gets its name."""
        if self._is_complete(file.digest):
            size = self._file(file.digest).stat().st_size
            if size != file.size:
                raise UserError(
                    f"the server offers {file.name} with {file.size:,} bytes, and the file of this "
                    f"hash has {size:,}."
                )
            return size
        part = self._part(file.digest)
        size = part.stat().st_size if part.exists() else 0
        return size if size < file.size else self._settle(file)

    def _settle(self, file: OfferedFile) -> int:
        """Give a finished file its name if its hash is right, or else remove it."""
        part = self._part(file.digest)
        if content_hash(part) == file.digest:
            atomic_files.settle(part, self._file(file.digest))
            keep_hash(self._file(file.digest), file.digest)
            log.info("file %s: %s bytes, SHA-256 %s", file.name, f"{file.size:,}", file.digest)
            return file.size
        part.unlink()
        self._mismatches[file.digest] += 1
        sentence = f"the file {file.name} came with other bytes than its hash says"
        if self._mismatches[file.digest] > 1:
            raise UserError(f"{sentence}, and not for the first time; it was removed.")
        log.warning("%s; it was removed, and the server sends it once more", sentence)
        return 0

    def _is_complete(self, digest: str) -> bool:
        """True if the file of this hash is here; a damaged one is removed."""
        file = self._file(digest)
        if not file.exists():
            return False
        if content_hash(file) == digest:
            return True
        log.warning("%s is damaged and was removed", file)
        file.unlink()
        return False

    def _refuse_full(self, files: Sequence[OfferedFile]) -> None:
        """Raise FullDiskError if the disk has too little space for what is missing."""
        missing = sum({file.digest: file.size - self._held(file) for file in files}.values())
        with explained(self.folder):
            atomic_files.make(self.folder, private=True)
            free = shutil.disk_usage(self.folder).free
        if missing and missing + RESERVE > free:
            raise FullDiskError(
                f"the server's files need {missing:,} bytes more, and the disk of {self.folder} "
                f"has {free:,}, of which {RESERVE:,} stay free."
            )

    def _prune(self, used: set[str]) -> None:
        """Remove files of other runs beyond the bound. used: the hashes of this run's files."""
        if self.most is None:
            return
        others = [file for file in atomic_files.listed(self.folder) if file.stem not in used]
        total = 0
        for file in sorted(others, key=lambda file: -file.stat().st_mtime_ns):
            total += file.stat().st_size
            if total > self.most:
                file.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self.folder / digest

    def _part(self, digest: str) -> Path:
        return self.folder / f"{digest}{PART}"
