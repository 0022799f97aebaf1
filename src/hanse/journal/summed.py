"""The clients whose sum a round reveals, written before the first of their masks is removed.

A round that is repeated with other clients would give the server a second sum, and the difference
of the two could be the update of a single client. Server and clients therefore note the first sum,
each on its own disk, and keep to it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors import json_text

FILE = "summed.json"  # in the server's run folder, and in each client's


def noted(folder: Path, round: int) -> tuple[str, ...]:
    """The names that are noted for a round; empty if there are none."""
    return tuple(_read(folder / FILE).get(str(round), ()))


def note(folder: Path, round: int, names: Sequence[str]) -> None:
    """Note the names for a round, durably."""
    rounds = {**_read(folder / FILE), str(round): [*names]}
    atomic_files.write(folder / FILE, json.dumps(rounds).encode(), private=True)


def _read(file: Path) -> dict[str, list[str]]:
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        rounds = json_text.parse(data)
        return {str(key): [str(name) for name in names] for key, names in rounds.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{file}, the record of the sums that were revealed, cannot be read; bring it back "
            "from a copy, or begin a new run."
        ) from None
