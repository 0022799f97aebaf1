"""Memory that this process may use: the machine's, within the limits of containers and of `ulimit`.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux, proc(5).
"""

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

ROOT = Path("/")  # holds proc/ and sys/
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


def _limits() -> Iterator[Limit]:
    yield _machine()
    yield from _address_space()
    for folder, files in _cgroups():
        yield from _group(folder, files)


def _machine() -> Limit:
    """The machine's memory; what the kernel can free at once counts as free."""
    facts = _table(ROOT / "proc" / "meminfo")
    if "MemTotal:" in facts and "MemAvailable:" in facts:
        total, free = facts["MemTotal:"] * 1024, facts["MemAvailable:"] * 1024
        return Limit(total, total - free)
    total = PAGE * os.sysconf("SC_PHYS_PAGES")
    return Limit(total, total // 2)  # this system does not tell what is free


def _address_space() -> Iterator[Limit]:
    """The limit of `ulimit -v`, if one is set."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = _text(ROOT / "proc" / "self" / "statm").split()
        yield Limit(limit, int(pages[0]) * PAGE if pages else 0)


def _group(folder: Path, files: CgroupFiles) -> Iterator[Limit]:
    """The limits of one control group; none if it has no files for them."""
    used = _number(folder / files.used) or 0
    cached = _table(folder / "memory.stat").get(files.cached, 0)
    for name in files.limits:
        if (limit := _number(folder / name)) is not None:
            yield Limit(limit, max(0, used - cached))


def _cgroups() -> Iterator[tuple[Path, CgroupFiles]]:
    """The folders of this process's control group and of all groups that it lies in."""
    paths = _own_paths()
    for line in _text(ROOT / "proc" / "self" / "mountinfo").splitlines():
        mounted, _, filesystem = line.partition(" - ")
        kind, *_, options = filesystem.split() or ["", ""]
        if kind == "cgroup2":
            files, path = V2, paths.get("", "/")
        elif kind == "cgroup" and "memory" in options.split(","):
            files, path = V1, paths.get("memory", "/")
        else:
            continue
        root, place = mounted.split()[3:5]
        mount = ROOT / place.lstrip("/")
        inside = PurePath(_below(path, root))
        yield from ((mount / group, files) for group in (inside, *inside.parents))


def _own_paths() -> dict[str, str]:
    """The path of this process's control group for each controller of version 1; "": version 2."""
    lines = _text(ROOT / "proc" / "self" / "cgroup").splitlines()
    fields = [line.split(":", 2) for line in lines]
    return {name: path for _, names, path in fields for name in names.split(",")}


def _below(path: str, root: str) -> str:
    """The part of a group's path below a mount of `root`; empty if the mount does not show it."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return path[len(root.rstrip("/")) :].strip("/") if inside and ".." not in path else ""


def _table(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    rows = [line.split() for line in _text(file).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(file: Path) -> int | None:
    """The number in a file; None if it says "max", or is not there."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not on this system, or not for this process
        return ""
