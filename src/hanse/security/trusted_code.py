"""Checks of files: their code may run, and no other user could have changed them.

A part from outside the package, `path/to/file.py:Class`, is code. A file runs if the user named it
by hand: as an override, in an experiment on the command line, or by --trust. From then on it runs
for this user wherever an experiment names it, until the file changes: a list of such files, with
path and SHA-256, is in the user's state folder. An experiment.yaml in a run folder allows nothing,
since the folder may come from somebody else.
"""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError, explained
from hanse.tensors import json_text

log = logging.getLogger(__name__)

GROUP, EVERYBODY = stat.S_IWGRP, stat.S_IWOTH

_granted: dict[Path, bytes] = {}  # content of the files that may run in this process
_by_hand: ContextVar[bool] = ContextVar("by_hand", default=False)


@contextmanager
def granting(by_hand: bool = True) -> Iterator[None]:
    """Within the block, count every file with a part as named by the user."""
    token = _by_hand.set(by_hand)
    try:
        yield
    finally:
        _by_hand.reset(token)


def grant(file: Path, lasting: bool = True) -> bytes:
    """Let a file run as it is now, and return its content. lasting: in later processes too."""
    source = _read(file)
    _granted[file] = source
    if lasting:
        _remember(file, hashlib.sha256(source).hexdigest())
    return source


def source(file: Path) -> bytes:
    """The content of a file that may run; raises UserError for one that may not."""
    if _by_hand.get():
        return grant(file)
    if file in _granted:
        return _granted[file]
    content, known = _read(file), _known().get(str(file))
    if known == hashlib.sha256(content).hexdigest():
        return _granted.setdefault(file, content)
    why = "has changed since you ran it" if known else "you have not named on a command line before"
    raise UserError(
        f"{file} is Python code that {why}, and the experiment was not given by hand; read the "
        "code, and add --trust to run it."
    )


def refuse_writable(path: Path, harm: str, bits: int = GROUP | EVERYBODY) -> None:
    """Raise UserError for a file or folder that other users can change; a missing one passes.

    A symbolic link is followed: its target and the target's folder are checked.
    harm: the damage that they could do, for the message. bits: the modes that are refused.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    me = os.geteuid()
    if me and status.st_uid not in (0, me):  # root in a container sees files of the host's users
        raise UserError(f"{path} belongs to another user, who could {harm}; make it your own.")
    mode = stat.S_IMODE(status.st_mode)
    if mode & bits and not _is_mounted_secret(path, status):
        raise UserError(
            f"{path} has mode {mode:04o}, so other users could {harm}; run `chmod go-w {path}`, "
            "and look whether one of them has changed it."
        )
    if path.is_symlink():
        refuse_writable(path.resolve().parent, harm, bits)


def _is_mounted_secret(path: Path, status: os.stat_result) -> bool:
    """True for a mounted folder of secrets, as Kubernetes makes them.

    It has mode 1777 and is mounted read-only: nobody here can add files to it, and the sticky bit
    protects its files where it is mounted otherwise.
    """
    sticky = stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)
    return sticky and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _read(file: Path) -> bytes:
    if (content := atomic_files.read(file)) is None:
        raise UserError(f"there is no file {file}.")
    return content


def _record() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(home) / "hanse" / "trusted.json"


def _known() -> dict[str, str]:
    """The SHA-256 of each file that may run, by its full path; empty if the list cannot be used."""
    record = _record()
    try:
        for place in (record, record.parent):
            refuse_writable(place, "let their own code run as yours")
        hashes = json_text.parse_object(atomic_files.read(record) or b"{}")
        return {str(path): str(digest) for path, digest in hashes.items()}
    except (UserError, ValueError, AttributeError, RecursionError) as error:
        log.warning("the list of code that may run is not used: %s", error)
        return {}


def _remember(file: Path, digest: str) -> None:
    """Add a file to the list; if that fails, the run goes on and a warning is logged."""
    record = _record()
    try:
        if _known().get(str(file)) == digest:
            return
        with explained(record):
            atomic_files.make(record.parent, private=True)
        with atomic_files.alone(record):
            existing = {path: d for path, d in _known().items() if os.path.exists(path)}
            text = json.dumps({**existing, str(file): digest}, indent=2)
            atomic_files.write(record, text.encode(), private=True)
    except (UserError, RuntimeError) as error:  # without a home folder
        log.warning("to go on with this run, add --trust: %s", error)
