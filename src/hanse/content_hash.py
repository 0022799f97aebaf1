"""The SHA-256 of a file's content, computed again only if the file has changed."""

import hashlib
import threading
from pathlib import Path

MOST = 1024  # files whose hash is known
State = tuple[Path, int, int, int, int, int]

_known: dict[State, str] = {}
_lock = threading.Lock()


def content_hash(file: Path) -> str:
    """The SHA-256 of a file as hex; a file of gigabytes is read again only if it has changed."""
    state = _state(file)
    if (digest := _known.get(state)) is None:
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        _keep(state, digest)
    return digest


def keep_hash(file: Path, digest: str) -> None:
    """Note the hash of a file that this process has just given this name, so as not to read it.

    A new name, or one name less, changes the time of a file's last change, but not its content.
    """
    _keep(_state(file), digest)


def _state(file: Path) -> State:
    stat = file.stat()
    return file, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _keep(state: State, digest: str) -> None:
    with _lock:
        _known[state] = digest
        if len(_known) > MOST:
            del _known[next(iter(_known))]
