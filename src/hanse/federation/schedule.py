"""The schedule of a run: its rounds, who takes part, and when it is measured."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How long a run goes on, who takes part, and when it is measured.

    fraction_train: share of the clients in each round, at least one, drawn by seed.
    validate_every: rounds between two looks at the validation split; 0 for none.
    test: whether the test split is scored before the first round and after the last; "final": after
        the last only.
    evaluate_clients: whether each client scores the result on its own held-out rows.
    deadline: seconds a client has for one answer; None waits.
    quorum: the fewest updates that are combined.
    over_selection: how many times as many clients are asked as are waited for.
    max_norm_ratio: how many times the median of the others' norms an update may have; None: any.
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
