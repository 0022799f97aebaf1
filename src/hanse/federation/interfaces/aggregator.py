"""The role of an aggregator: it combines the updates of a round into one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import PAYLOADS, withdraw
from hanse.federation.interfaces.exchange import Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate, SumTerms
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import Layout, Tensors

__all__ = ["Aggregator", "Exchange", "TooFewClientsError"]


WITHHELD = "no loss, step count or score of a single client leaves it"


class RefusalError(UserError):
    """A refusal by the client half of a rule; the sentence has nothing of the client's rows."""


class Aggregator(ABC):
    """A rule that combines a round's updates into one.

    Server half: aggregate, layout. Client half: admit, seal and handle, for a rule with phases.

    A rule either reads each update (`Exchange.updates`), or declares `sums_only` and adds summands
    (`Exchange.sealed`): an update's tensors times its weight, the weight, and the weighted numbers
    that the algorithm declares, so that the mean follows from their sum (`federation/sums.py`).
    """

    # The rule sees no single update: transforms must be linear, and `combine` is impossible.
    sums_only: ClassVar[bool] = False
    # The setting to name to users in place of a codec that rounds numbers, if the rule does so.
    rounds_by: ClassVar[str] = ""
    # Contents of the aggregate (MEAN, NUMBERS), and UPDATES or WEIGHED for a rule that honours
    # `combine`. What is not declared is not given.
    gives: ClassVar[frozenset[str]] = frozenset()
    # Contents of updates that it takes, as `Algorithm.payload` has them.
    payloads: ClassVar[tuple[str, ...]] = PAYLOADS
    # Client halves use `client.identity`, which is None for a rule that does not declare this.
    # Silos on other machines then need kits that have the keys of all others.
    needs_identity: ClassVar[bool] = False
    # Clients compare `client.request_digest` in the rule's own phases, before they train. Silos
    # then need no agreement of their own (`deployment/silo/agreement.py`). It needs identities, and
    # instructions that are the same for all clients of a round.
    agrees: ClassVar[bool] = False
    # Clients help once to open a sum of a round. Its aggregate is durable before the step, since a
    # server that has lost it cannot ask for another one.
    opens_once: ClassVar[bool] = False
    # No norm of an update reaches the result, so none is refused for it: norms of others would
    # decide that, and the rule may bear more attackers than there are others.
    sets_norms: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "gives", frozenset(), "aggregate")

    @property
    def has_phases(self) -> bool:
        """True if the rule overrides `handle` or `seal`: clients take part in its own phases."""
        rule = type(self)
        return (rule.handle, rule.seal) != (Aggregator.handle, Aggregator.seal)

    def require_clients(self, clients: int) -> None:  # noqa: B027 (serves any number)
        """Raise UserError for a number of clients of a round that the rule cannot serve."""

    def require_names(self, names: Sequence[str], always: bool) -> None:  # noqa: B027 (names none)
        """Raise UserError unless the clients that a setting names are among those of the run.

        always: whether all of them take part in every round.
        """

    def fewest(self, clients: int) -> int:
        """The fewest updates that the rule combines in a round that asks so many clients."""
        return 1

    def sum_terms(self, clients: int) -> SumTerms | None:
        """The terms of a round of so many clients; None unless it sums whole numbers as they are.

        Raises UserError as `require_clients` does.
        """
        return None

    def describe(self, clients: int, whole: bool = False) -> tuple[str, ...]:
        """Phrases for users: the rule's terms in a round of so many clients, and what it hides.

        whole: updates are encoded as whole numbers.
        """
        shown = "" if whole else "; the journal has the mean loss"
        return (WITHHELD + shown,) if self.sums_only else ()

    @abstractmethod
    def aggregate(self, exchange: Exchange) -> Aggregate:
        """At the server: ask the clients, and combine their updates.

        Raises TooFewClientsError if too few are left in any phase.
        """

    def layout(self, expected: Layout) -> Layout:
        """The layout of a sealed summand, from that of the summand."""
        return expected

    def admit(self, note: Instruction, client: Client) -> None:  # noqa: B027 (refuses nothing)
        """At the client, before it trains: raise UserError for a request that it must not answer.

        note: the rule's own message in the request.
        """

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        """At the client: hide a summand, which then leaves the client."""
        return summand

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        """At the client: answer a phase of the aggregator's own."""
        raise UserError(f"this client knows no request of the kind {kind!r}.")
