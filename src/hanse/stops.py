"""Commands that are stopped by a signal: what is raised, and which exit code a shell expects."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hanse.errors import UserError


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
