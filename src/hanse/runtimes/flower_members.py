"""Which nodes a SuperLink's database may know: Flower adds one by its key, but does not list keys.

The note beside the database may be ahead of it, and is never behind it, so no node is overlooked
whose key was revoked since.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse import storage


@dataclass(frozen=True)
class Members:
    """The nodes in one database of Flower's, by their public keys."""

    database: Path

    def settle(self, keys: Sequence[str]) -> None:
        """Let the database know no nodes but those of these keys; only while no SuperLink runs.

        If it may know others, or nobody noted whom, it is begun anew: a SuperLink that starts
        begins a new run anyway.
        """
        if not self._note.exists() or set(self._noted()) - set(keys):
            for file in self.database.parent.glob(f"{self.database.name}*"):  # sqlite has several
                file.unlink()
        storage.write(self._note, json.dumps(list(keys)).encode())

    @property
    def _note(self) -> Path:
        return self.database.with_name("members.json")

    def _noted(self) -> list[str]:
        found: list[str] = json.loads(self._note.read_text(encoding="utf-8"))
        return found
