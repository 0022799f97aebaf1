"""A round's exchange with its clients, as an aggregator sees it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.journal.summed import OpenedSum
from hanse.tensors.named import Layout, Tensors


class TooFewClientsError(Exception):
    """Too few clients are left in a phase: the round is paused, and all its phases are repeated.

    left: how many answered. required: how many the rule needs.
    """

    def __init__(self, left: int, required: int) -> None:
        super().__init__(f"{left} clients are left, and {required} are required")
        self.left, self.required = left, required


class Exchange(Protocol):
    """One round's exchange with its clients, as an aggregator sees it."""

    @property
    def round(self) -> int:
        """The number of the round."""

    @property
    def profiles(self) -> Mapping[str, ClientProfile]:
        """The clients of the round, in client order."""

    @property
    def required(self) -> int:
        """The fewest clients whose updates the round can use; with fewer it is repeated."""

    @property
    def participants(self) -> Sequence[str]:
        """The names of all clients of the run, in the order that the clients know, too."""

    @property
    def summed(self) -> OpenedSum | None:
        """The sum that an earlier attempt of this round may have revealed."""

    def note_sum(self, opened: OpenedSum) -> None:
        """Note, durably, that this sum is about to be revealed.

        The difference of two sums could be one client's update, so no attempt of the round may
        reveal another one; `summed` is this one from now on.
        """

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, whose `combine` an aggregator that gives UPDATES or WEIGHED calls."""

    def updates(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The round's training: valid, decoded updates with a positive weight, in client order.

        notes: the aggregator's own message to each client; a client without a note is left out.
        """

    def sealed(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Tensors]]:
        """The same for a rule that sees sums only: what `Aggregator.seal` made of each summand."""

    def mean(self, total: Tensors, clients: Sequence[str]) -> Aggregate:
        """The aggregate of these clients from the sum of their summands."""

    def ask(
        self,
        kind: str,
        instructions: Mapping[str, Instruction],
        expected: Mapping[str, Layout],
        patience: float | None = None,
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """A phase of the aggregator's own: valid answers in client order.

        patience: seconds to wait for them, if that is less than the time for training.
        """

    def digest(self) -> bytes:
        """The `request_digest` (32 bytes) of this round's train request, for a rule that agrees.

        Raises TypeError if it is not the same for all clients.
        """

    def weight_bound(self) -> float:
        """The largest weight that the update of any client of the round may have."""

    def summand_layout(self) -> Layout:
        """The layout of each client's summand, before `Aggregator.layout`."""
