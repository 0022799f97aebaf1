"""Files that are either whole or absent, and the system's errors about files as sentences."""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hanse.errors import UserError, explained

Data = bytes | list[bytes | memoryview]  # a content, or its parts
PRIVATE, PUBLIC = 0o600, 0o644  # modes of files, whatever the umask says
DAY = 86_400.0  # seconds after which a part in a shared folder counts as abandoned

_ABSENT = (FileNotFoundError, NotADirectoryError)
_HASHED = re.compile(r"(.+)-([0-9a-f]{64})(\.\w+)")
_PART = re.compile(
    r"\.(.+)\.(\d+)\.part"
)  # the file or folder that it is to become, and the process that writes it


class DamagedError(UserError):
    """The content of a file is not what its hash says."""


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is no such file.

    Raises UserError if the system refuses to read it. That says nothing about the content, so no
    caller may take the file for a damaged one, or write another in its place.
    """
    try:
        return path.read_bytes()
    except _ABSENT:
        return None
    except OSError as error:
        raise _unread(path, error) from error


def listed(folder: Path) -> list[Path]:
    """The paths in a folder, sorted; empty if there is no such folder.

    Raises UserError if the system refuses to list it.
    """
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except _ABSENT:
        return []
    except OSError as error:
        raise _unread(folder, error) from error


def _unread(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} could not be read ({error.strerror or error}); nothing was changed: make it "
        "readable and run the same command again."
    )


def write(path: Path, data: Data, private: bool = False, public: bool = False) -> None:
    """Write `data` to `path`; a crash leaves the old file or the new one, never a part of it.
    private: only the owner may ever read it.
    public: everybody may read it and only the owner may write it, whatever the umask says.
    Missing folders are made with the same rights.
    """
    aside, mode = _aside(path), PRIVATE if private else PUBLIC if public else None
    with explained(path):
        make(path.parent, private, public)
        try:
            aside.unlink(missing_ok=True)  # its mode would stay
            with open(aside, "wb", opener=_opener(os.O_EXCL, mode)) as file:
                file.writelines(_parts(data))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def append(path: Path, data: bytes | memoryview, private: bool = False) -> None:
    """Append `data` to `path` durably; a failed write leaves the file as it was.

    private: as for `write`. A symbolic link is not followed.
    """
    opener = _opener(0, PRIVATE if private else None)
    with explained(path):
        make(path.parent, private)
        with open(path, "ab", buffering=0, opener=opener) as file:
            size, unwritten = file.seek(0, os.SEEK_END), memoryview(data)
            try:
                while unwritten:
                    unwritten = unwritten[file.write(unwritten) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise


def settle(part: Path, path: Path) -> None:
    """Give a finished part, which `append` wrote, its final name durably."""
    with explained(path):
        part.replace(path)
        _sync(path.parent)


def make(folder: Path, private: bool = False, public: bool = False) -> None:
    """Make a folder and all missing ones above it; private, public: the rights, as for `write`."""
    if not (private or public):
        folder.mkdir(parents=True, exist_ok=True)
        return
    mode = 0o700 if private else 0o755
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=mode, exist_ok=True)
        place.chmod(mode)


def _opener(more: int, mode: int | None) -> Callable[[str, int], int]:
    """An opener for `open` that follows no link and gives a new file its mode at once."""

    def opened(path: str, flags: int) -> int:
        handle = os.open(path, flags | more | os.O_NOFOLLOW, 0o666 if mode is None else mode)
        if mode is not None:
            os.fchmod(handle, mode)
        return handle

    return opened


def write_hashed(path: Path, data: Data, private: bool = False) -> None:
    """Write `data` beside `path` as NAME-SHA256.SUFFIX, in place of earlier files of that name.

    data, private: as for `write`.
    """
    sha = hashlib.sha256()
    for part in _parts(data):
        sha.update(part)
    file = path.with_name(f"{path.stem}-{sha.hexdigest()}{path.suffix}")
    write(file, data, private)
    for name, other in hashed(path.parent, path.suffix):
        if name == path.stem and other != file:
            with explained(other):
                other.unlink(missing_ok=True)


def _parts(data: Data) -> list[bytes | memoryview] | list[bytes]:
    return data if isinstance(data, list) else [data]


def hashed(folder: Path, suffix: str) -> list[tuple[str, Path]]:
    """The files of `write_hashed` in a folder, sorted, each with its name without hash and suffix.

    Raises UserError if the system refuses to list the folder.
    """
    matches = ((_HASHED.fullmatch(file.name), file) for file in listed(folder))
    return [(match[1], file) for match, file in matches if match and match[3] == suffix]


def read_hashed(file: Path) -> bytes | None:
    """The content of a file that `hashed` lists; None if it is gone.

    Raises DamagedError if its hash is not that in its name, and UserError as `read` does.
    """
    data, match = read(file), _HASHED.fullmatch(file.name)
    if data is not None and (match is None or hashlib.sha256(data).hexdigest() != match[2]):
        raise DamagedError(f"{file} is damaged")
    return data


def find_hashed(path: Path) -> bytes | None:
    """The content that `write_hashed` wrote for `path`; None if there is none.

    A writer that was killed may have left two; each is whole. Raises the errors of `read_hashed`.
    """
    files = [file for name, file in hashed(path.parent, path.suffix) if name == path.stem]
    return read_hashed(files[-1]) if files else None


@contextmanager
def folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `path` when the block ends without an exception.

    replace: whether it may take the place of an existing folder, which is an error otherwise.
    """
    aside = _aside(path)
    with explained(path):
        _sweep(path)
        aside.mkdir(parents=True)
        try:
            yield aside
            for file in aside.rglob("*"):
                _sync(file)
            if replace and path.exists():
                shutil.rmtree(path)
            aside.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def lock(path: Path, wait: bool = False) -> IO[bytes] | None:
    """Lock a file until the returned handle is closed; None if another process holds the lock.

    wait: wait for that process instead. The file is neither emptied nor reached through a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    handle = open(path, "rb", opener=lambda name, _: os.open(name, flags, 0o666))  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        handle.close()
        if isinstance(error, BlockingIOError):
            return None
        raise
    return handle


@contextmanager
def alone(path: Path, by: str = "") -> Iterator[None]:
    """Let one process at a time make `path`; the others wait here, and find it made.

    by: the name of the work, if others must not wait for its end; they get a UserError instead.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path.with_name(f".{path.name}.lock"), wait=not by)
    if held is None:
        raise UserError(f"{by} is working on {path.parent}; stop that first.")
    with held:
        yield


def sweep(folder: Path, age: float = 0.0) -> None:
    """Remove the parts of files that killed processes have left below a folder.

    age: least seconds since a part was changed. A folder that other machines write into, too, needs
        it, since their processes are not known here.
    """
    for part in folder.rglob(".*.part"):
        match = _PART.fullmatch(part.name)
        if match and _ended(int(match[2])) and _older(part, age):
            _remove(part)


def _aside(path: Path) -> Path:
    """The part in which this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _sweep(path: Path) -> None:
    """Remove the parts of `path` that processes have left which are no longer running."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        match = _PART.fullmatch(part.name)
        if match and match[1] == path.name and _ended(int(match[2])):
            _remove(part)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _older(path: Path, age: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime >= age
    except OSError:  # it was removed meanwhile
        return False


def _ended(process: int) -> bool:
    """True if a process has ended; parts of this one's number are from an earlier process."""
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's process
        return False
    return False


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
