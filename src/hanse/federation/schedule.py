"""The schedule of a run: rounds, share of clients, evaluation, deadlines."""

from dataclasses import dataclass
from typing import Literal

from hanse.federation.client_sampling import taking_part


@dataclass(frozen=True)
class Schedule:
    """The number of rounds, the clients of each, and the times of evaluation.

    participants: the names of all clients of the run, in client order; empty if not known.
    fraction_train: share of the clients in each round, at least one client, drawn by seed.
    validate_every: rounds between two evaluations on the validation split; 0: after the last only.
    test: whether the test split is scored before the first round and after the last; "final": after
        the last only.
    evaluate_clients: whether each client scores the result on its own held-out rows.
    deadline: seconds that a client has for one answer; None: no limit.
    quorum: the fewest updates that are combined.
    over_selection: ratio of the clients that are asked to those that are waited for.
    max_norm_ratio: the largest ratio of an update's norm to the median of the others'; None: any.
    """

    rounds: int
    seed: int
    fraction_train: float = 1.0
    validate_every: int = 1
    test: bool | Literal["final"] = True
    evaluate_clients: bool = True
    deadline: float | None = None
    quorum: int = 1
    over_selection: float = 1.0
    max_norm_ratio: float | None = None
    participants: tuple[str, ...] = ()

    @property
    def clients(self) -> int:
        """The number of clients of the run; 0 if it is not known."""
        return len(self.participants)

    @property
    def clients_per_round(self) -> int:
        """The number of clients that a round waits for; 0 if that of the run is not known."""
        return taking_part(self.clients, self.fraction_train) if self.clients else 0
