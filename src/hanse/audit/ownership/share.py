"""The share of the mean that one silo has, estimated at home from how the model follows its mark.

A mean over clients takes away all but p of what a silo with the share p of the rows moves. A silo
is not told p, and secure sums hide what others send. Yet the bits of its key are a secret direction
in which nobody else moves on purpose: the part of its own moves that arrives there is p, together
with what aggregator, noise and server optimizer do to them (a reconstruction, no part of FedIPR).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hanse import atomic_files
from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError
from hanse.tensors import json_text

FILE = "mark.json"
LEAST = 1e-3  # the smallest estimate of a share: a bit is pulled at most 1000 times as far


class Move(NamedTuple):
    """One training of the marked tensors.

    start, end: the mean of the bits' coordinates, each times its sign, before and after it.
    size: that of a coordinate in a random direction, at the end.
    """

    round: int
    start: float
    end: float
    size: float


def share_of(moves: Sequence[Move], present: float, clients: int) -> float:
    """The estimated share of a silo, between `LEAST` and 1.

    p = (Σ gᵢoᵢ + 1/K) / (Σ oᵢ² + 1) over earlier rounds i, for its own move o and that of the model
    g until its next training, both in units of the size of a random move. The 1/K, of K clients
    with equal rows, counts like one move of that size. What others move along the secret bits is
    independent of their signs, so its mean over N bits is small, about 1/√N of a random move.

    present: the mean of the coordinates, each times its sign, at the start of this round.
    """
    along, squares = 1 / max(1, clients), 1.0
    ends = [*(move.start for move in moves[1:]), present]
    for move, arrived in zip(moves, ends, strict=False):
        if move.size > 0:
            own, shared = (move.end - move.start) / move.size, (arrived - move.start) / move.size
            along, squares = along + shared * own, squares + own**2
    return min(1.0, max(LEAST, along / squares))


@dataclass
class Moves:
    """A silo's moves in a run, in a file beside its memory that only it can read.

    The file also has the commitment to the key, to which the run is bound.
    They are in no message, and the server is not told that there are any. A move whose round was
    not counted has moved nothing, as if the share were smaller. If the file is lost, 1/K is taken
    again.
    """

    folder: Path
    commitment: str

    def before(self, round: int) -> list[Move]:
        """The moves of earlier rounds; those of later ones were dropped when the run resumed."""
        return [move for move in self._read() if move.round < round]

    def keep(self, move: Move) -> None:
        """Add the move of a round."""
        self._write([*self.before(move.round), move])

    def begin(self) -> None:
        """Write the file without moves."""
        self._write([])

    def _write(self, moves: Sequence[Move]) -> None:
        values = {"commitment": self.commitment, "moves": moves}
        atomic_files.write(self.folder / FILE, json.dumps(values).encode(), private=True)

    def _read(self) -> list[Move]:
        return _content(self.folder / FILE)[1]


def pin(folder: Path, key: OwnershipKey) -> None:
    """Bind a run to a key from now on; raises UserError if it began with another one.

    folder: where this run's moves are kept.
    """
    commitment, _ = _content(folder / FILE)
    if not commitment:
        Moves(folder, key.commitment).begin()
    elif commitment != key.commitment:
        raise UserError(
            f"the run was begun with the key {commitment[:16]}…, and ownership now names another "
            f"one of {key.owner:.80} ({key.commitment[:16]}…); bring the first one back, since two "
            "half marks prove nothing, or begin a new run."
        )


def _content(file: Path) -> tuple[str, list[Move]]:
    """The commitment and the moves in a file; empty if there is no file."""
    if (data := atomic_files.read(file)) is None:
        return "", []
    try:
        values = json_text.parse_object(data, finite=True)
        moves = [Move(int(round), *map(float, rest)) for round, *rest in values["moves"]]
        return values["commitment"][:64], moves
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} is damaged; bring it back from a copy, or remove it, which lets this silo "
            "estimate its share of the mean again."
        ) from None
