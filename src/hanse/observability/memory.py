"""Memory that this process may use: the machine's, within the limits of containers and of `ulimit`.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux, proc(5).
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hanse.observability import kernel_files
from hanse.observability.kernel_files import number, table, text

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limit:
    """Bytes that may be used at most, and those of them that are in use."""

    total: int
    used: int

    @property
    def free(self) -> int:
        """Bytes that may still be used."""
        return max(0, self.total - self.used)


@dataclass(frozen=True)
class CgroupFiles:
    """The names of the files that a version of cgroups keeps for each group.

    cached: the line of memory.stat with the bytes of files that the kernel gives back when it must.
    """

    limits: tuple[str, ...]
    used: str
    cached: str


V1 = CgroupFiles(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
V2 = CgroupFiles(("memory.max", "memory.high"), "memory.current", "inactive_file")


def total_memory() -> int:
    """Bytes that this process may use when nothing else runs."""
    return min(limit.total for limit in _limits())


def available_memory() -> int:
    """Bytes that this process may use now, in addition to those that it holds."""
    return min(limit.free for limit in _limits())


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory() -> int:
    """The bytes that this process holds now; its peak where the system does not tell."""
    pages = text(kernel_files.ROOT / "proc" / "self" / "statm").split()
    return int(pages[1]) * PAGE if len(pages) > 1 else peak_memory()


def release() -> None:
    """Give the memory of objects that are gone back to the system, if the C library can.

    glibc keeps it for later objects, so that the process seems to hold it still.
    """
    gc.collect()
    with suppress(AttributeError, OSError):  # other libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Let `peak_memory` count from now on; false if the system does not."""
    try:
        (kernel_files.ROOT / "proc" / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return peak_memory() < 1.05 * held_memory() + 2**24


def _limits() -> Iterator[Limit]:
    yield _machine()
    yield from _address_space()
    for folder, version in kernel_files.groups("memory"):
        yield from _group(folder, V2 if version == 2 else V1)


def _machine() -> Limit:
    """The machine's memory; what the kernel can free at once counts as free."""
    facts = table(kernel_files.ROOT / "proc" / "meminfo")
    if "MemTotal:" in facts and "MemAvailable:" in facts:
        total, free = facts["MemTotal:"] * 1024, facts["MemAvailable:"] * 1024
        return Limit(total, total - free)
    total = PAGE * os.sysconf("SC_PHYS_PAGES")
    return Limit(total, total // 2)  # this system does not tell what is free


def _address_space() -> Iterator[Limit]:
    """The limit of `ulimit -v`, if one is set."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = text(kernel_files.ROOT / "proc" / "self" / "statm").split()
        yield Limit(limit, int(pages[0]) * PAGE if pages else 0)


def _group(folder: Path, files: CgroupFiles) -> Iterator[Limit]:
    """The limits of one control group; none if it has no files for them."""
    used = number(folder / files.used) or 0
    cached = table(folder / "memory.stat").get(files.cached, 0)
    for name in files.limits:
        if (limit := number(folder / name)) is not None:
            yield Limit(limit, max(0, used - cached))
