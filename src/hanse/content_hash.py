"""The SHA-256 of a file's content, computed again only if the file has changed."""

import hashlib
from functools import lru_cache
from pathlib import Path


def content_hash(file: Path) -> str:
    """The SHA-256 of a file as hex; a file of gigabytes is read again only if it has changed."""
    stat = file.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _read(file, state)


@lru_cache(maxsize=1024)
def _read(file: Path, state: tuple[int, ...]) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
