"""Commitments: what a client, or the server, has committed itself to in each round, durably.

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
    """One content for each round of a run and each subject; file: JSON, its owner's only.

    Raises UserError if the file cannot be read: its owner would be committed twice.
    """

    file: Path
    _contents: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._contents = _read(self.file)

    def content(self, round: int, subject: str = "") -> str:
        """The content of a round; empty if there is none."""
        return self._contents.get(_key(round, subject), "")

    def commit(self, round: int, content: str, subject: str = "") -> bool:
        """Commit in a round, durably; returns False if there is another content.

        content: not empty.
        """
        former = self.content(round, subject)
        if not former:
            self._contents[_key(round, subject)] = content
            atomic_files.write(self.file, json.dumps(self._contents).encode(), private=True)
        return former in ("", content)


def _key(round: int, subject: str) -> str:
    return f"{round} {subject}".strip()


def _read(file: Path) -> dict[str, str]:
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        return {str(key): str(value) for key, value in json_text.parse(data).items()}
    except (ValueError, AttributeError, RecursionError):
        raise UserError(
            f"{file}, the record of what was agreed on in each round, cannot be read; bring it "
            "back from a copy, or begin a new run."
        ) from None
