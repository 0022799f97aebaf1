"""Secure aggregation (Bonawitz et al. 2017): the server learns the sum of updates, or nothing."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import (
    Aggregator,
    Exchange,
    RefusalError,
    TooFewClientsError,
)
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import MEAN, NUMBERS
from hanse.federation.interfaces.results import Aggregate, SumTerms
from hanse.federation.messages import Instruction, Update
from hanse.federation.secure_sums.client_half import Participation
from hanse.federation.secure_sums.contents import received, to_tensors
from hanse.federation.secure_sums.grid import Grid
from hanse.federation.secure_sums.plan import LEAST, Plan, plan
from hanse.federation.secure_sums.server_half import Collection
from hanse.federation.secure_sums.statements import Terms
from hanse.tensors.named import Layout, Tensors

log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, lt=1)]
SESSION = "secagg"  # the entry of a client's session
MOST = 100_000  # clients of a round
NOTHING = torch.empty(0, dtype=torch.uint8)  # in place of a tensor that did not come
FEWEST_LEVELS = 100  # steps of the grid between 0 and the clip


@dataclass(frozen=True)
class SecAgg(Aggregator):
    """Σ wₖ·Δₖ / Σ wₖ from sums of masked words: no single update can be read at the server.

    Bonawitz et al. 2017 (ACM CCS, "Practical secure aggregation for privacy-preserving machine
    learning", fig. 4, active adversary): each pair of clients adds and subtracts a common mask,
    each client adds a mask of its own, and Shamir shares of both secrets let the survivors remove
    what is left of clients that drop out. Keys are fresh in each try of a round. Each client signs
    its keys together with what it was sent, so that silos with other models or jobs take part in no
    common sum. Of many clients each shares its secrets with `neighbours` others (Bell et al. 2020,
    ACM CCS, SecAgg+); the server draws them, and this protects from one that draws at random.

    An update's numbers are rounded to a grid of `bits` bits, and cut at ±clip for a client of the
    largest weight, and at ±clip·(largest weight)/w for one of weight w. Whole numbers are added as
    they are, modulo 2^bits.
    """

    sums_only: ClassVar[bool] = True
    agrees: ClassVar[bool] = True
    opens_once: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})
    rounds_by: ClassVar[str] = "aggregator.secagg.bits"

    # t: this many of a client's neighbours, or of all clients, must answer; None: computed.
    threshold: PositiveInt | None = None
    # How many others each client shares secrets with; None: the fewest that are safe.
    neighbours: PositiveInt | Literal["complete"] | None = None
    colluders: Share = 0.2  # γ, the share of the clients that may collude with the server
    dropouts: Share = 0.1  # δ, the share of the clients that may drop out
    security: Annotated[int, Field(ge=20, le=128)] = 40  # σ: a smaller graph fails below 2^−σ
    correctness: Annotated[int, Field(ge=10, le=128)] = 30  # η: a round pauses below 2^−η
    bits: Literal[16, 32, 64] = 32  # of a masked number
    clip: PositiveFloat = 8.0  # the largest absolute value of an update's number
    patience: PositiveFloat = 60.0  # seconds to wait for a step without training

    def aggregate(self, exchange: Exchange) -> Aggregate:
        opened = exchange.summed  # clients help to open this one and no other
        clients = opened.clients if opened else len(exchange.profiles)
        bound = opened.weight_bound if opened else exchange.weight_bound()
        plan, grid = self._plan_now(exchange.round, clients), self._grid(clients, bound)
        collection = Collection(exchange, plan, grid, exchange.round, self.patience)
        total, clipped, survivors = collection.sum()
        aggregate = exchange.mean(total, survivors)
        self._tell(exchange.round, collection, survivors, clipped)
        facts = {
            "clipped": clipped,
            "threshold": float(collection.plan.threshold),
            "dropped_out": float(clients - len(survivors)),
        }
        return replace(aggregate, numbers={**aggregate.numbers, **facts})

    def layout(self, expected: Layout) -> Layout:
        return self._grid(1, 1.0).layout(expected)

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        with _secrets_of(client):
            if kind == "keys":
                return self._keys(instruction, client)
            part = _participation(client)
            if kind == "shares":
                return Update(to_tensors(part.share(instruction.tensors)))
            if kind == "survivors":
                survivors = received(instruction.tensors.get("survivors", NOTHING))
                return Update(to_tensors({"signature": part.sign(survivors)}))
            if kind == "unmask":
                return self._unmask(part, instruction, client)
        return super().handle(kind, instruction, client)

    def admit(self, note: Instruction, client: Client) -> None:
        with _secrets_of(client):
            part = _participation(client)
            part.admit(note.tensors, client.request_digest)
            _commit_to_memory(client, part)

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        with _secrets_of(client):
            return _participation(client).mask(summand)

    def require_clients(self, clients: int) -> None:
        self.plan(clients)
        levels = self._grid(clients, 1.0).levels
        if levels < FEWEST_LEVELS:
            raise UserError(
                f"aggregator.secagg.bits is {self.bits}, and sums of {clients} clients would leave "
                f"each {levels} steps up to the clip, where at least {FEWEST_LEVELS} are due; set "
                "it to 32."
            )

    def fewest(self, clients: int) -> int:
        return self.plan(clients).quorum

    def sum_terms(self, clients: int) -> SumTerms:
        plan = self.plan(clients)
        return SumTerms(plan.quorum, plan.colluders, self._grid(clients, 1.0).most_whole)

    def describe(self, clients: int, whole: bool = False) -> tuple[str, ...]:
        if clients < LEAST:
            return super().describe(clients)
        rounding = (
            f"numbers of updates are cut at ±{self.clip:g} and rounded to steps of "
            f"{self._grid(clients, 1.0).step:.2g} ({self.bits} bits each) at the silo of the "
            "largest weight; both are twice as large at one of half that weight"
        )
        if whole:
            rounding = f"updates are whole numbers, added as they are ({self.bits} bits each)"
        return self.plan(clients).sentence(), rounding, *super().describe(clients, whole)

    def plan(self, clients: int) -> Plan:
        """Threshold and neighbours for so many clients; raises UserError if none are safe."""
        return plan(
            clients,
            self.colluders,
            self.dropouts,
            self.security,
            self.correctness,
            self.threshold,
            self.neighbours,
        )

    def _plan_now(self, round: int, clients: int) -> Plan:
        """The plan of a round; the run has been checked, so if none is safe, silos are not there.

        Raises TooFewClientsError then, so that the round waits for one more.
        """
        try:
            return self.plan(clients)
        except UserError as error:
            log.warning("round %d: %s", round, error)
            raise TooFewClientsError(clients, clients + 1) from None

    def _grid(self, clients: int, weight_bound: float) -> Grid:
        return Grid(clients, self.bits, self.clip, weight_bound)

    def _keys(self, instruction: Instruction, client: Client) -> Update:
        """Begin a new try with new secrets; those of an earlier try are gone."""
        client.session.pop(SESSION, None)
        number, bound = (
            instruction.numbers.get(name, math.nan) for name in ("clients", "weight_bound")
        )
        request = received(instruction.tensors.get("request", NOTHING))
        if not 1 <= number <= MOST or not 0 < bound < math.inf:
            raise RefusalError(
                f"{client.profile.name} was asked for keys without the number of clients or the "
                "largest weight; look after the server."
            )
        clients = int(number)
        plan, grid = self.plan(clients), self._grid(clients, bound)
        terms = Terms(client.job, client.context.round, request, plan, grid)
        part = client.session[SESSION] = Participation.begin(client, terms)
        return Update(to_tensors({"keys": part.advertisement().to_bytes()}))

    def _unmask(self, part: Participation, instruction: Instruction, client: Client) -> Update:
        """Help to open the sum, and no other one of the round; the client's secrets are gone."""
        try:
            revealed = part.reveal(instruction.tensors)
            opened, round = part.opened, client.context.round
            if client.commitments is None or not client.commitments.commit(round, opened):
                raise _second_sum(client)
            return Update(to_tensors(revealed))
        finally:
            client.session.pop(SESSION, None)

    def _tell(
        self, round: int, collection: Collection, survivors: list[str], clipped: float
    ) -> None:
        """Log what the server has seen, and what the grid has cut."""
        log.info(
            "round %d: the sum of %d silos' masked updates%s; no single update was seen",
            round,
            len(survivors),
            f", without {', '.join(collection.dropped)}" if collection.dropped else "",
        )
        if clipped:
            log.warning(
                "round %d: %d numbers of updates were cut to ±%g; raise aggregator.secagg.clip",
                round,
                clipped,
                self.clip,
            )


@contextmanager
def _secrets_of(client: Client) -> Iterator[None]:
    """Deletes the client's secrets of a try in which it refuses to go on."""
    try:
        yield
    except UserError:
        client.session.pop(SESSION, None)
        raise


def _commit_to_memory(client: Client, part: Participation) -> None:
    """Commit a client to the memory behind its update, before it trains and sends it.

    The others' shares may open a sum with this update although the client itself is not asked to.
    Raises RefusalError for another memory, and for other terms than those of a sum that it has
    helped to open.
    """
    commitments, round, digest = client.commitments, client.context.round, client.memory_digest
    opened = commitments.content(round) if commitments else ""
    if opened and not opened.startswith(part.terms.digest.hex()):
        raise _second_sum(client)
    if commitments is None or not commitments.commit(round, digest or "none", "memory"):
        raise RefusalError(
            f"{client.profile.name} has trained in round {round} from another memory, and sends no "
            "second update, since two sums would tell the difference; let the server go on where "
            "it was, or begin a new run."
        )


def _second_sum(client: Client) -> RefusalError:
    return RefusalError(
        f"{client.profile.name} has helped to open a sum of round {client.context.round}, and does "
        "so for no other one, since the two would tell a silo's update; let the same silos take "
        "part again with the same settings, or begin a new run."
    )


def _participation(client: Client) -> Participation:
    part = client.session.get(SESSION)
    if not isinstance(part, Participation) or part.terms.round != client.context.round:
        raise RefusalError(
            f"{client.profile.name} has no keys of this round: it was not asked for them, or it "
            "was started again since; the next try of the round begins with new ones."
        )
    return part
