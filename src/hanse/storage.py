"""Files that are either whole or not there."""

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hanse.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write(path: Path, data: bytes, private: bool = False) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part.

    private: nobody but the owner may read it, at no moment.
    """
    aside = _aside(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.unlink(missing_ok=True)  # its mode would stay
            with open(aside, "wb", opener=_private if private else None) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o600)


def append(path: Path, data: bytes) -> None:
    """Append `data` to `path` durably; a failed write leaves the file as it was."""
    with explained(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` only when the block ends without an exception."""
    aside = _aside(path)
    with explained(path):
        _sweep(path)
        aside.mkdir(parents=True)
        try:
            yield aside
            for file in aside.rglob("*"):
                _sync(file)
            if path.exists():
                shutil.rmtree(path)
            aside.replace(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def alone(path: Path, by: str = "") -> Iterator[None]:
    """One process at a time makes `path`; the others wait here, and find it made.

    by: who has it meanwhile, if others must not wait for that; then UserError is raised.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0 if by else -1)
        except Timeout:
            raise UserError(f"{by} is working on {path.parent}; stop that first.") from None
    try:
        yield
    finally:
        lock.release()


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
        advice = "free some space" if code in _FULL else "make it writable"
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


def _aside(path: Path) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _sweep(path: Path) -> None:
    """Remove what processes that are no more have left beside `path`."""
    start, end = f".{path.name}.", ".part"
    for left in path.parent.glob(f"{glob.escape(start)}*{end}"):
        process = left.name.removeprefix(start).removesuffix(end)
        if process.isdecimal() and (int(process) == os.getpid() or not _runs(int(process))):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
