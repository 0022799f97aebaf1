"""The requests of one round, and the replies to them that pass the schema gate."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hanse.federation.delivery.file_delivery import FileDelivery
from hanse.federation.exchange.conversation import Conversation
from hanse.federation.messages import (
    ClientProfile,
    Instruction,
    Reply,
    Request,
    Update,
    validate_update,
)
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.observability.progress import report
from hanse.observability.requests import log_fields, request_id
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout
from hanse.tensors.serialization import MessageError

Validate = Callable[[ClientProfile, Update, Layout], None]

log = logging.getLogger(__name__)


@dataclass
class Inquiry:
    """Asks the clients of one round, and records their replies in log and ledger.

    attempt: as in `Request`.
    remembering: the clients that keep a memory of this round.
    silent: the clients that did not answer a request in time.
    """

    run: Run
    server_state: ServerState
    context: RoundContext
    profiles: Mapping[str, ClientProfile]
    attempt: int = 0
    remembering: set[str] = field(default_factory=set)
    silent: list[str] = field(default_factory=list)

    def request(self, kind: str, name: str, instruction: Instruction) -> Request:
        """A request with the adapter's constants for a client that does not have them."""
        state = self.server_state
        return Request(
            kind,
            self.context.round,
            state.last_counted_rounds.get(name, 0),
            instruction,
            constants=state.constants.digest,
            given={} if name in state.holding else state.constants.tensors,
            files=self.run.files.hashes,
            attempt=self.attempt,
        )

    def ask(
        self,
        kind: str,
        names: Sequence[str],
        request: Callable[[str], Request],
        layout: Callable[[str], Layout],
        validate: Validate = lambda profile, update, layout: validate_update(update, layout),
        spare: int = 0,
        patience: float | None = None,
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """Ask all of these clients, and yield the valid updates in client order.

        request: makes a client's request. layout: the layout of its reply's tensors.
        validate: raises MessageError for an update that the round cannot use.
        spare: how many clients need not reply.
        patience: seconds to wait, at most the schedule's deadline; None: the deadline.
        """
        limits = [t for t in (patience, self.run.schedule.deadline) if t is not None]
        conversation = Conversation(
            self.run.transport,
            self.run.journal.ledger,
            kind,
            self.context.round,
            names,
            request,
            layout,
            self.server_state.constants.digest,
            self.server_state.holding,
            min(limits, default=None),
            attempt=self.attempt,
            spare=spare,
            supply=FileDelivery(self.run, self.context.round),
        )
        for reply, size in conversation.replies():
            conversation.count(size)
            if self._record(kind, reply, size, layout(reply.client), validate):
                yield self.profiles[reply.client], reply.update
            del reply  # or it would stay in memory while the next client trains
        self.silent += conversation.silent
        report(Work(Activity.AGGREGATING))

    def refuse_valid(self, name: str, reason: str) -> None:
        """Refuse an update that passed the schema gate; its client must not keep the round."""
        self.remembering.discard(name)
        self._refuse_update(name, "train", reason)

    def _record(
        self, kind: str, reply: Reply, size: int, layout: Layout, validate: Validate
    ) -> bool:
        """Record a reply in log and ledger; returns True if its update is valid and may be used."""
        ledger = self.run.journal.ledger
        if reply.error:
            extra = self._log_fields("refused", reply.client, kind)
            log.warning("%s did not answer: %s", reply.client, reply.error, extra=extra)
            ledger.received(reply.client, reply.kind, size, {}, error=reply.error)
            return False
        try:
            validate(self.profiles[reply.client], reply.update, layout)
        except MessageError as error:
            self._refuse_update(reply.client, kind, str(error), size)
            return False
        if self.server_state.constants.digest:
            self.server_state.holding.add(reply.client)
        numbers = dict(reply.update.numbers)
        if kind in ("train", "evaluate") and not self.run.method.aggregator.sums_only:
            numbers["weight"] = reply.update.weight
        ledger.received(reply.client, reply.kind, size, numbers)
        log.info("%s", _summary(reply), extra=self._log_fields("accepted", reply.client, kind))
        if reply.update.keeps_memory:
            self.remembering.add(reply.client)
        return True

    def _refuse_update(self, name: str, kind: str, reason: str, size: int = 0) -> None:
        """Write into log and ledger that a client's update is not used."""
        extra = self._log_fields("refused", name, kind)
        log.warning("the answer of %s to %s was refused: %s", name, kind, reason, extra=extra)
        self.run.journal.ledger.received(name, kind, size, {}, error=reason)

    def _log_fields(self, event: str, client: str, kind: str) -> dict[str, Any]:
        run_id = self.run.journal.ledger.run_id
        return log_fields(event, request_id(run_id, self.context.round, client, kind))


def _summary(reply: Reply) -> str:
    """One line of progress about a client's answer."""
    numbers = {n: v for n, v in reply.update.numbers.items() if n in ("loss", "steps", "accuracy")}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    in_brackets = f" ({shown})" if shown else ""
    return f"round {reply.round}: {reply.client} answered {reply.kind}{in_brackets}"
