"""Stopping a run: in this process as a user would, or by kill -9 in a fork of it."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@contextmanager
def ctrl_c(line: str, presses: int) -> Iterator[None]:
    """Press Ctrl-C as often when a line of progress begins so: in the middle of a round."""
    left = [signal.SIGINT] * presses

    def press(record: logging.LogRecord) -> bool:
        while left and record.getMessage().startswith(line):
            os.kill(os.getpid(), left.pop())
        return True

    log = logging.getLogger("hanse.federation.exchange.inquiry")
    log.setLevel(logging.INFO)
    log.addFilter(press)
    try:
        yield
    finally:
        log.removeFilter(press)


def killed(work: Callable[[], object]) -> bool:
    """Do some work in a fork of this process; return whether it was killed in the middle."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "it failed"
    return status != 0


def die(*_: object, **__: object) -> None:
    """Kill this process: in a fork, in the place of a function."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_write(number: int, *paths: Path) -> None:
    """Have this process kill itself when it renames, or opens to write, a file for so many times.

    paths: how the files' paths begin.
    """
    left, beginnings = number, tuple(map(str, paths))

    def hear(event: str, about: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "os.rename" or (event == "open" and bool(int(str(about[2])) & WRITES))
        if writes and str(about[0]).startswith(beginnings):
            left -= 1
            if left == 0:
                die()

    sys.addaudithook(hear)
