"""The server's state between two rounds, and its form in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.federation.constants import Constants
from hanse.federation.exchange.downloads import Memories
from hanse.federation.interfaces.results import Memory, State
from hanse.federation.pipeline import TransformStates
from hanse.journal.checkpoints import Checkpoint
from hanse.tensors.named import Tensors

# Names of groups in a checkpoint. Each transform's state is a group named by its place.
ALGORITHM = "algorithm."  # before the name of each of the algorithm's groups
OPTIMIZER = "optimizer"  # before the name of each named model; alone for the trained one
MEMORY = "memory."  # before the group and the place of each memory of the download


@dataclass(frozen=True)
class ServerState:
    """The server's state between two rounds.

    optimizers: the optimizer's state of each model that the algorithm trains on the server, by the
        model's name; "" for the trained one.
    last_counted_rounds: of each client that keeps a memory, the last round that counted its update.
    constants: of the adapter.
    holding: the clients that have the constants; each exchange adds to it.
    download_memories: of the transforms that encode instructions, by group of clients and place.
    """

    algorithm_state: State
    transform_states: TransformStates
    optimizers: Mapping[str, Memory]
    last_counted_rounds: Mapping[str, int]
    constants: Constants = field(default_factory=Constants)
    holding: set[str] = field(default_factory=set)
    download_memories: Memories = field(default_factory=dict)

    def checkpoint(self, round: int) -> Checkpoint:
        """The checkpoint of this state after a round."""
        groups: dict[str, Tensors] = {
            f"{ALGORITHM}{name}": tensors for name, tensors in self.algorithm_state.items()
        }
        groups |= self.transform_states
        for name, state in self.optimizers.items():
            groups[f"{OPTIMIZER}.{name}" if name else OPTIMIZER] = state
        for group, memory in self.download_memories.items():
            groups |= {f"{MEMORY}{group}.{place}": tensors for place, tensors in memory.items()}
        return Checkpoint(
            round,
            groups,
            dict(self.last_counted_rounds),
            self.constants.digest,
            frozenset(self.holding),
        )

    @staticmethod
    def restored(checkpoint: Checkpoint, constants: Constants | None = None) -> "ServerState":
        """The state in a checkpoint.

        constants: those that the checkpoint names; may be left out by who needs the model only.
        """
        groups = dict(checkpoint.groups)
        optimizers: dict[str, Memory] = {}
        for name in [name for name in groups if name.partition(".")[0] == OPTIMIZER]:
            optimizers[name.partition(".")[2]] = dict(groups.pop(name))
        names = [name for name in groups if name.startswith(ALGORITHM)]
        algorithm_state = {name.removeprefix(ALGORITHM): groups.pop(name) for name in names}
        memories: dict[str, dict[str, Memory]] = {}
        for name in [name for name in groups if name.startswith(MEMORY)]:
            group, _, place = name.removeprefix(MEMORY).partition(".")
            memories.setdefault(group, {})[place] = dict(groups.pop(name))
        return ServerState(
            algorithm_state,
            groups,
            optimizers,
            checkpoint.counted,
            constants or Constants(),
            set(checkpoint.holding),
            memories,
        )
