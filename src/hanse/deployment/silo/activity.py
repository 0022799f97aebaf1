"""A silo's doings of the last 24 hours over all runs, and the end of what it keeps of old runs.

A server gives a run its name, so a limit that counts by run ends with a new name. These counts
are the silo's own.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors import json_text

DAY = 86_400.0  # seconds
OLD = 30 * DAY  # after which nothing of a run is kept
NEWEST = 20  # runs of which all is kept, however old


@dataclass
class Activity:
    """Counts of different things by kind, such as runs and requests, each with its last time.

    file: where they are kept, so that a restart forgets none.
    """

    file: Path
    clock: Callable[[], float] = time.time
    _seen: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = _read(self.file)

    def admit(self, kind: str, key: str, most: int) -> bool:
        """Note a thing, unless `most` others of its kind were noted within 24 hours.

        The same key is the same thing, and is counted once.
        """
        now = self.clock()
        # A time ahead of the clock counts: a clock that was set back frees nothing.
        recent = {k: t for k, t in self._seen.get(kind, {}).items() if now - t < DAY}
        if key in recent:
            return True
        if len(recent) >= most:
            return False
        self._seen[kind] = {**recent, key: now}
        atomic_files.write(self.file, json.dumps(self._seen).encode(), private=True)
        return True


def prune(state: Path, keep: set[str], clock: Callable[[], float] = time.time) -> None:
    """Remove files and folders of runs that are neither recent nor among the newest.

    state: the silo's. keep: how the run at work is called in names.
    """
    for pattern in ("asked-*", "stated-*", "runs/*"):
        found = (path for path in state.glob(pattern) if path.stem.partition("-")[2] not in keep)
        times = {path: path.stat().st_mtime for path in found if path.name not in keep}
        newest = sorted(times, key=lambda path: -times[path])
        for path in newest[NEWEST:]:
            if clock() - times[path] > OLD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(file: Path) -> dict[str, dict[str, float]]:
    if not file.exists():
        return {}
    try:
        found = json_text.read(file)
        return {
            str(kind): {str(key): float(when) for key, when in seen.items()}
            for kind, seen in found.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError, OSError):
        raise UserError(
            f"{file} cannot be read, which says what this silo did in the last 24 hours; bring it "
            "back from a copy, or remove it."
        ) from None
