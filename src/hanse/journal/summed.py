"""The clients whose sum a round reveals, written before the first of their masks is removed.

A round that is repeated with other clients would give the server a second sum, and the difference
of the two could be the update of a single client. The server therefore keeps to the first sum.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hanse.journal.commitments import Commitments
from hanse.tensors import json_text

FILE = "summed.json"  # in the server's run folder


def noted(folder: Path, round: int) -> tuple[str, ...]:
    """The names that are noted for a round; empty if there are none."""
    return tuple(json_text.parse(Commitments(folder / FILE).content(round) or "[]"))


def note(folder: Path, round: int, names: Sequence[str]) -> None:
    """Note the names for a round, durably."""
    Commitments(folder / FILE).commit(round, json.dumps([*names]))
