"""The sum that a round reveals, written before the first of its masks is removed.

A round that is repeated with other clients, or on another grid, would give the server a second sum,
and the difference of the two could be the update of a single client. Clients help to open one sum
of a round, so the server keeps to the first one.
"""

import json
from dataclasses import astuple, dataclass
from pathlib import Path

from hanse.journal.commitments import Commitments
from hanse.tensors import json_text

FILE = "summed.json"  # in the server's run folder


@dataclass(frozen=True)
class OpenedSum:
    """One sum of a round.

    names: of the clients whose updates are in it. clients: how many were asked to take part, and
    weight_bound: the largest weight that each might have, on which its grid depends.
    """

    names: tuple[str, ...]
    clients: int
    weight_bound: float


def noted(folder: Path, round: int) -> OpenedSum | None:
    """The sum that is noted for a round; None if there is none."""
    if not (content := Commitments(folder / FILE).content(round)):
        return None
    names, clients, weight_bound = json_text.parse(content)
    return OpenedSum(tuple(names), clients, weight_bound)


def note(folder: Path, round: int, opened: OpenedSum) -> None:
    """Note the sum of a round, durably."""
    Commitments(folder / FILE).commit(round, json.dumps(astuple(opened)))
