"""Searches the memory of another process of this machine (Linux)."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE = 16 * 2**20  # bytes that are read at a time
LONGEST = 4096  # bytes of what is searched for


def found_in(process: int, wanted: Iterable[bytes]) -> set[bytes]:
    """Those byte strings that lie in the process's memory: all regions that can have changed.

    Left out are read-only mappings of files, which hold libraries, and device memory.
    """
    left, found = set(wanted), set[bytes]()
    for data in _pieces(process):
        hits = {needle for needle in left if needle in data}
        found |= hits
        left -= hits
    return found


def wait_until_stopped(process: int, seconds: float) -> None:
    """Wait until a process stands still by SIGSTOP."""
    end = time.monotonic() + seconds
    while _state(process) != "T":
        assert time.monotonic() < end, f"process {process} did not stop: {_state(process)}"
        time.sleep(0.01)


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _pieces(process: int) -> Iterator[bytes]:
    """The memory in pieces, each beginning with the end of the piece before it."""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for first, end in _regions(process):
            for start in range(first, end, PIECE):
                begin = max(first, start - LONGEST)
                with contextlib.suppress(OSError):  # a region that only the kernel reads
                    yield os.pread(memory.fileno(), min(end, start + PIECE) - begin, begin)


def _regions(process: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        name = words[5] if len(words) > 5 else ""
        if words[1][0] == "r" and (words[1][1] == "w" or not name) and not name.startswith("/dev/"):
            first, last = words[0].split("-")
            yield int(first, 16), int(last, 16)
