"""Commitments: what a client has committed itself to in each round of a run, durably.

A client that answered two different requests of one round could be asked for the difference.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors import json_text


@dataclass
class Commitments:
    """One content for each round of a run; file: JSON, readable by its owner only.

    Raises UserError if the file cannot be read: the client would commit itself twice.
    """

    file: Path
    _contents: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._contents = _read(self.file)

    def allows(self, round: int, content: str) -> bool:
        """True unless the client has committed itself to something else in a round."""
        return self._contents.get(str(round), content) == content

    def commit(self, round: int, content: str) -> bool:
        """Commit the client in a round, durably; returns False if it has to something else."""
        if not self.allows(round, content):
            return False
        self._contents[str(round)] = content
        atomic_files.write(self.file, json.dumps(self._contents).encode(), private=True)
        return True


def _read(file: Path) -> dict[str, str]:
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        return {str(key): str(value) for key, value in json_text.parse(data).items()}
    except (ValueError, AttributeError, RecursionError):
        raise UserError(
            f"{file}, the record of what this silo was sent, cannot be read; bring it back from a "
            "copy, or begin a new run."
        ) from None
