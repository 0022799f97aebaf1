"""Files that are either whole or not there, and errors of the system as sentences."""

import errno
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

from hanse.errors import UserError

PRIVATE, PUBLIC = 0o600, 0o644  # modes of files, whatever the umask says
DIGEST = hashlib.sha256().digest_size
DAY = 86_400.0  # seconds after which a part in a shared folder is a left one

_ABSENT = (FileNotFoundError, NotADirectoryError)
_ADVICE = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space")
_ADVICE[errno.ELOOP] = "put a file or folder of its own where the symbolic link is"
_PART = re.compile(r"\.(.+)\.(\d+)\.part")  # of which file or folder, and of which process


class DamagedError(UserError):
    """A file was read, and its content is not what its hash says."""


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is no such file.

    Raises UserError if the system refuses to read it: that says nothing about the content, so
    nobody may take the file for a damaged one, nor write another in its place.
    """
    try:
        return path.read_bytes()
    except _ABSENT:
        return None
    except OSError as error:
        raise _unread(path, error) from error


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing if there is no such folder.

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


def write(path: Path, data: bytes, private: bool = False, public: bool = False) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part.

    private: nobody but the owner may read it, at no moment.
    public: all may read it, and nobody but the owner may write it, whatever the umask says.
    Folders that are missing are made alike.
    """
    aside, mode = _aside(path), PRIVATE if private else PUBLIC if public else None
    with explained(path):
        make(path.parent, private, public)
        try:
            aside.unlink(missing_ok=True)  # its mode would stay
            with open(aside, "wb", opener=_opener(os.O_EXCL, mode)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def append(path: Path, data: bytes, private: bool = False) -> None:
    """Append `data` to `path` durably; a failed write leaves the file as it was.

    private: as for `write`. A symbolic link is not followed.
    """
    opener = _opener(0, PRIVATE if private else None)
    with explained(path):
        make(path.parent, private)
        with open(path, "ab", buffering=0, opener=opener) as file:
            size, rest = file.seek(0, os.SEEK_END), memoryview(data)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise


def make(folder: Path, private: bool = False, public: bool = False) -> None:
    """Make a folder and those above it that are missing; with the modes of `write`, if asked."""
    if not (private or public):
        folder.mkdir(parents=True, exist_ok=True)
        return
    mode = 0o700 if private else 0o755
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=mode, exist_ok=True)
        place.chmod(mode)


def _opener(more: int, mode: int | None) -> Callable[[str, int], int]:
    """How `open` opens a file for writing: not through a link, and with this mode at once."""

    def opened(path: str, flags: int) -> int:
        handle = os.open(path, flags | more | os.O_NOFOLLOW, 0o666 if mode is None else mode)
        if mode is not None:
            os.fchmod(handle, mode)
        return handle

    return opened


def seal(path: Path, data: bytes) -> None:
    """Write a private file that begins with the hash of the rest."""
    write(path, hashlib.sha256(data).digest() + data, private=True)


def unseal(path: Path) -> bytes | None:
    """What was sealed; None if there is no such file.

    Raises DamagedError if it is not whole, and UserError as `read` does.
    """
    whole = read(path)
    if whole is None:
        return None
    if hashlib.sha256(whole[DIGEST:]).digest() != whole[:DIGEST]:
        raise DamagedError(f"{path} is damaged")
    return whole[DIGEST:]


@contextmanager
def folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` only when the block ends without an exception.

    replace: whether it takes the place of one that is there; else that is an error.
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
    """Hold a lock file until what is returned is closed; None if another process holds it.

    wait: until it does no more. The file is neither emptied nor reached through a link.
    """
    handle = open(path, "rb", opener=_locker)  # noqa: SIM115 (closed by whoever holds it)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    except BaseException:
        handle.close()
        raise
    return handle


def _locker(path: str, flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


@contextmanager
def alone(path: Path, by: str = "") -> Iterator[None]:
    """One process at a time makes `path`; the others wait here, and find it made.

    by: who has it meanwhile, if others must not wait for that; then UserError is raised.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path.with_name(f".{path.name}.lock"), wait=not by)
    if held is None:
        raise UserError(f"{by} is working on {path.parent}; stop that first.")
    with held:
        yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the machine's refusal to write `path` into a sentence for the user."""
    try:
        yield
    except Exception as error:
        code = _refusal(error)
        if code is None:
            raise
        reason = os.strerror(code)
        advice = _ADVICE.get(code, "make it writable")
        raise UserError(
            f"{path} could not be written ({reason}); nothing saved before is lost: "
            f"{advice} and run the same command, or `hanse resume`, again."
        ) from error


def _refusal(error: Exception) -> int | None:
    """The operating system's number for an error; libraries in Rust give it in their text."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def sweep(folder: Path, age: float = 0.0) -> None:
    """Remove the parts of files that killed processes have left below a folder.

    age: seconds since a part was changed; in a folder that others work in, too, those of processes
        on other machines must not be taken for left ones.
    """
    for left in folder.rglob(".*.part"):
        match = _PART.fullmatch(left.name)
        if match and _ended(int(match[2])) and _older(left, age):
            _remove(left)


def _aside(path: Path) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _sweep(path: Path) -> None:
    """Remove what processes that are no more have left beside `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        match = _PART.fullmatch(left.name)
        if match and match[1] == path.name and _ended(int(match[2])):
            _remove(left)


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _older(path: Path, age: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime >= age
    except OSError:  # it is gone
        return False


def _ended(process: int) -> bool:
    """Whether a process is no more; what this one has left stems from one of the same number."""
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's
        return False
    return False


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
