"""Errors that end a command with one sentence, and the cleaning of texts that they quote.

UserError: the user can mend this. StoppedError: the user stopped the command. `explained` turns the
system's refusal to write a file into a UserError.
"""

import errno
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

LONGEST = 8000  # characters of a sentence
_ADVICE = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space")
_ADVICE[errno.ELOOP] = "put a file or folder of its own where the symbolic link is"


class UserError(Exception):
    """A user's mistake in one sentence: what came, what is allowed, what to do.

    The command line prints the sentence without a traceback and exits with `code`; any other
    exception is a defect of the program and keeps its traceback. What the sentence quotes may come
    from anywhere, so it is cleaned here, for terminals, logs and reports alike.
    """

    code = 2

    def __init__(self, sentence: str = "") -> None:
        super().__init__(cleaned(sentence, LONGEST))


MOST = 2000  # characters of a text that came over the network
# Control characters (escape codes begin with one), line separators, overrides of the direction of
# writing, and lone surrogates, which no encoding can write.
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = "\t\n\r\v\f"


def cleaned(text: str, most: int | None = MOST, lines: bool = False) -> str:
    r"""The text without what could deceive its reader; to clean it again changes nothing.

    Control characters, overrides and surrogates are written as escapes (\x1b); ends of lines and
    tabs become spaces.

    most: characters that are left; what is longer is cut, and says so. None: all.
    lines: whether ends of lines and tabs stay.
    """
    whole = len(text)
    if lines:
        text = text.replace("\r\n", "\n")
    text = _UNSAFE.sub(lambda found: _written(found[0], lines), text[:most])
    if most is None or max(whole, len(text)) <= most:
        return text
    mark = f"… (cut; {whole:,} characters)"
    return text[: most - len(mark)] + mark


def _written(sign: str, lines: bool) -> str:
    if sign in _SPACES:
        return sign if lines and sign in "\n\t" else " "
    return f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}"


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which services are stopped; all that answers Ctrl-C answers it alike."""


class StoppedError(UserError):
    """The user has stopped a command; the sentence says what is saved, and how to go on.

    by: the signal's exception, or another stop that followed from it; none: Ctrl-C, which was
        answered later.
    """

    def __init__(self, sentence: str = "", by: BaseException | None = None) -> None:
        super().__init__(sentence)
        self.code = by.code if isinstance(by, StoppedError) else 128 + _number(by)


def _number(error: BaseException | None) -> int:
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated while the block lasts: children are ended, a sentence is said.

    Only the main thread can; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_missing(what: str, extra: str, modules: Sequence[str], otherwise: str) -> None:
    """Raise UserError if a module cannot be imported that an extra of hanse installs.

    what: that needs it. extra: as in pyproject.toml. otherwise: what else can be done.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UserError(
                f"{what} needs the package {module}, which is not installed; run pip install "
                f'"hanse[{extra}]", or {otherwise}.'
            )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into a sentence for the user."""
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
    """The operating system's number of an error; libraries in Rust give it in their text."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None
