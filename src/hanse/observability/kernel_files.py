"""Files in which Linux describes the machine and the control groups of this process.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of Linux, proc(5).
"""

from collections.abc import Iterator
from pathlib import Path, PurePath

ROOT = Path("/")  # holds proc/ and sys/


def groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's control group and of all groups that it lies in.

    Each with the version of its files: 2, or 1 for those of a controller's own hierarchy.
    """
    paths = _own_paths()
    for line in text(ROOT / "proc" / "self" / "mountinfo").splitlines():
        mounted, _, filesystem = line.partition(" - ")
        kind, *_, options = filesystem.split() or ["", ""]
        if kind == "cgroup2":
            version, path = 2, paths.get("", "/")
        elif kind == "cgroup" and controller in options.split(","):
            version, path = 1, paths.get(controller, "/")
        else:
            continue
        root, place = mounted.split()[3:5]
        mount = ROOT / place.lstrip("/")
        inside = PurePath(_below(path, root))
        yield from ((mount / group, version) for group in (inside, *inside.parents))


def table(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    rows = [line.split() for line in text(file).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def number(file: Path) -> int | None:
    """The number in a file; None if it says "max", or is not there."""
    content = text(file).strip()
    return int(content) if content.isdecimal() else None


def text(file: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not on this system, or not for this process
        return ""


def _own_paths() -> dict[str, str]:
    """The path of this process's control group for each controller of version 1; "": version 2."""
    lines = text(ROOT / "proc" / "self" / "cgroup").splitlines()
    fields = [line.split(":", 2) for line in lines]
    return {name: path for _, names, path in fields for name in names.split(",")}


def _below(path: str, root: str) -> str:
    """The part of a group's path below a mount of `root`; empty if the mount does not show it."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return path[len(root.rstrip("/")) :].strip("/") if inside and ".." not in path else ""
