"""What the server knows between two rounds, and how a checkpoint holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.federation.constants import Constants
from hanse.federation.interfaces.results import Memory, State
from hanse.federation.pipeline import Codecs
from hanse.journal.checkpoints import Checkpoint
from hanse.tensors.named import Tensors

# Names of groups in a checkpoint; the transforms' states are beside them by their places.
STATE = "algorithm."
KEPT = "optimizer"


@dataclass(frozen=True)
class ServerState:
    """What the server knows between two rounds.

    constants: of the adapter. holding: the clients that have them, to which exchanges add.
    """

    state: State
    codecs: Codecs
    kept: Memory  # the optimizer's, for an algorithm that trains on the server
    counted: Mapping[str, int]  # the last counted round of each client that remembers it
    constants: Constants = field(default_factory=Constants)
    holding: set[str] = field(default_factory=set)


def checkpoint(number: int, standing: ServerState) -> Checkpoint:
    """What is written down after a round."""
    groups: dict[str, Tensors] = {f"{STATE}{name}": t for name, t in standing.state.items()}
    groups |= {**standing.codecs, KEPT: standing.kept}
    known = standing.constants.digest, frozenset(standing.holding)
    return Checkpoint(number, groups, dict(standing.counted), *known)


def standing_of(checkpoint: Checkpoint, constants: Constants | None = None) -> ServerState:
    """What the server knew at a checkpoint; constants: those that it names, where they matter."""
    groups = dict(checkpoint.groups)
    kept = dict(groups.pop(KEPT, {}))
    state = {n[len(STATE) :]: t for n, t in groups.items() if n.startswith(STATE)}
    codecs = {n: t for n, t in groups.items() if not n.startswith(STATE)}
    known = constants or Constants(), set(checkpoint.holding)
    return ServerState(state, codecs, kept, checkpoint.counted, *known)
