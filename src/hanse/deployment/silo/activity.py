"""A silo's activity of the last 24 hours over all runs, and the removal of old runs' files.

Servers choose the names of runs, so a limit per run would end with a new name. These counts hold
for all runs of the silo together.
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
OLD = 30 * DAY  # seconds after which a run's files are removed
NEWEST = 20  # runs whose files are kept, however old they are


@dataclass
class Activity:
    """Counts different runs, jobs and requests, each with the time of its first occurrence.

    file: keeps the counts over restarts.
    """

    file: Path
    clock: Callable[[], float] = time.time
    _seen: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = _read(self.file)

    def admit(self, kind: str, key: str, most: int) -> bool:
        """Count an item; false if `most` others of its kind were counted within 24 hours.

        An item with the same key is counted once.
        """
        now = self.clock()
        # A time ahead of the clock counts, so that setting the clock back frees nothing.
        recent = {k: t for k, t in self._seen.get(kind, {}).items() if now - t < DAY}
        if key in recent:
            return True
        if len(recent) >= most:
            return False
        self._seen[kind] = {**recent, key: now}
        atomic_files.write(self.file, json.dumps(self._seen).encode(), private=True)
        return True


def prune(state: Path, keep: set[str], clock: Callable[[], float] = time.time) -> None:
    """Remove the files and folders of runs that are neither recent nor among the newest.

    state: the silo's folder. keep: the names in files and folders of the run that is active.
    """
    for pattern in ("asked-*", "stated-*", "offered-*", "offered_model-*", "runs/*"):
        paths = (path for path in state.glob(pattern) if path.stem.partition("-")[2] not in keep)
        times = {path: path.stat().st_mtime for path in paths if path.name not in keep}
        newest = sorted(times, key=lambda path: -times[path])
        for path in newest[NEWEST:]:
            if clock() - times[path] > OLD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(file: Path) -> dict[str, dict[str, float]]:
    if not file.exists():
        return {}
    try:
        counts = json_text.read(file)
        return {
            str(kind): {str(key): float(time) for key, time in times.items()}
            for kind, times in counts.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError, OSError):
        raise UserError(
            f"{file}, the record of what this silo did in the last 24 hours, cannot be read; bring "
            "it back from a copy, or remove it."
        ) from None
