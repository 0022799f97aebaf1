"""Requests of one kind to a round's clients, and their replies in client order."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hanse.federation.exchange.screening import refuse_large
from hanse.federation.exchange.spool import Spool
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Reply, Request
from hanse.journal.ledger import Ledger
from hanse.observability.progress import report
from hanse.observability.requests import OWN_KINDS, log_fields, request_id
from hanse.observability.steps import ClientReplies
from hanse.tensors.named import Layout
from hanse.tensors.serialization import Content, MessageError

log = logging.getLogger(__name__)

LARGEST_HEADING = 2**20  # bytes of the header of a late reply, which is parsed to see what it is


class Supply(Protocol):
    """Sends a client what it lacks, between two requests to it."""

    def lacking(self, reply: Reply) -> bool:
        """True if a reply says that its client must be supplied, and then asked once more."""

    def deliver(self, clients: Sequence[str]) -> object:
        """Supply these clients; other clients must not be working on a request."""


@dataclass
class Conversation:
    """Requests of one kind to a round's clients, and their replies in client order.

    clients: in client order.
    request: makes a client's request when it is sent.
    layout: the layout of the tensors that a client's reply may hold.
    constants: the hash of the adapter's constants.
    holding: the clients that have the constants. One that has lost them is removed and asked again.
    deadline: seconds that the clients have to reply; None: no limit.
    attempt: as in `Request`.
    spare: how many clients need not reply; each error leaves one fewer.
    again: whether a client is asked once more after a reply, which is then not its last one.
    supply: sends files to a client that has lost them, once.
    silent: the clients that had not replied when the time was over.
    """

    transport: Transport
    ledger: Ledger
    kind: str
    round: int
    clients: Sequence[str]
    request: Callable[[str], Request]
    layout: Callable[[str], Layout]
    constants: str = ""
    holding: set[str] = field(default_factory=set)
    deadline: float | None = None
    attempt: int = 0
    spare: int = 0
    again: Callable[[Reply], bool] = lambda reply: False
    supply: Supply | None = None
    silent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unsent = deque(self.clients)
        self._unsupplied: list[str] = []
        self._supplied: set[str] = set()
        self._missing = set(self.clients)
        self._spool = Spool()
        self._last: tuple[Request, Content] | None = None
        self._under_way = self._done = self._bytes_down = self._bytes_up = 0

    def replies(self) -> Iterator[tuple[Reply, int]]:
        """Each client's one reply with its size in bytes. Their tensors are on disk until read."""
        self.transport.begin(self.kind, self.round, self.ledger)
        try:
            yield from self._in_client_order()
        finally:
            late = self.transport.end()
        for client, size in late:
            self._refuse(client, self.kind, self.round, size)

    def _in_client_order(self) -> Iterator[tuple[Reply, int]]:
        self._send()
        self._report()
        waiting = deque(self.clients)
        early: dict[str, tuple[Reply, int]] = {}
        for reply, size in self._arriving():
            early[reply.client] = reply, size
            del reply  # or its place on disk would not become free
            while waiting and waiting[0] in early:
                yield early.pop(waiting.popleft())
        self.silent = [name for name in waiting if name in self._missing]
        for name in waiting:
            if name in early:
                yield early.pop(name)
            else:
                extra = self._log_fields("missed", name)
                log.warning("%s did not answer in time", name, extra=extra)

    def count(self, size: int) -> None:
        """Count a reply of this size as done, and report the progress."""
        self._done, self._bytes_up = self._done + 1, self._bytes_up + size
        self._report()

    def _report(self) -> None:
        traffic = self._bytes_down, self._bytes_up
        report(ClientReplies(self.kind, self._done, len(self.clients), *traffic))

    def _send(self) -> None:
        """Send as many requests as the transport takes."""
        limit = self.transport.max_in_flight
        while self._unsent and (limit is None or self._under_way < limit):
            client = self._unsent.popleft()
            with self.ledger.time("serialization"):
                message = self._packed(self.request(client))
            self.ledger.sent(client, self.kind, len(message))
            self.transport.send(client, message)
            self._under_way, self._bytes_down = self._under_way + 1, self._bytes_down + len(message)

    def _packed(self, request: Request) -> Content:
        """The bytes of a request; those of one like the last are the same object."""
        if self._last is None or not request.is_like(self._last[0]):
            self._last = request, self._spool.write(request.parts())
        return self._last[1]

    def _arriving(self) -> Iterator[tuple[Reply, int]]:
        """Each client's one reply as it comes, until enough have come or the time is over."""
        end = self._end()
        while len(self._missing) > self.spare:
            self._send()
            if self._unsupplied and not self._under_way:
                end = self._supply_all()
                continue
            left = None if end is None else max(0.0, end - self.transport.clock())
            with self.ledger.time("clients"):
                arrived = self.transport.receive(left)
            if arrived is None:
                return
            sender, at = arrived[0], time.time()
            reply, size = self._read(*arrived)
            del arrived  # its bytes are on disk now
            if self._take(sender, reply, size, at):
                self._missing.discard(sender)
                self.spare = max(0, self.spare - bool(reply.error))  # another client must reply
                yield reply, size
            del reply  # or its place on disk would not become free

    def _end(self) -> float | None:
        """The time until which clients may reply from now on; None: no limit."""
        return None if self.deadline is None else self.transport.clock() + self.deadline

    def _supply_all(self) -> float | None:
        """Supply the clients that have lost files, ask them again, and return the new end."""
        assert self.supply is not None
        clients, self._unsupplied = self._unsupplied, []
        self._supplied.update(clients)
        self.supply.deliver(clients)
        self._unsent.extend(clients)
        return self._end()

    def _take(self, sender: str, reply: Reply, size: int, at: float) -> bool:
        """Account for a reply; returns True for the one that its sender owes. at: when it came.

        Any other reply is refused; a client that lacks the constants or files is asked once more.
        """
        if sender not in self._missing or not self._is_due(reply):
            self._refuse(reply.client, reply.kind, reply.round, size)
            return False
        self._under_way -= 1
        self.ledger.arrived(sender, reply.kind, at)
        if sender not in self._supplied and self.supply and self.supply.lacking(reply):
            self._unsupplied.append(sender)
        elif self._lacks_constants(reply) or self.again(reply):
            self._unsent.appendleft(sender)
        else:
            return True
        self.ledger.received(sender, reply.kind, size, {})
        return False

    def _is_due(self, reply: Reply) -> bool:
        """True if a reply answers a request of this conversation; errors name no attempt."""
        asked = (reply.kind, reply.round) == (self.kind, self.round)
        return asked and (bool(reply.error) or reply.attempt == self.attempt)

    def _refuse(self, client: str, kind: str, round: int, size: int) -> None:
        """Write into log and ledger that a reply is not used, since it is late or came before."""
        extra = self._log_fields("late", client, kind, round)
        text = "%s answered %s of round %d late or twice: not used"
        log.warning(text, client, kind, round, extra=extra)
        self.ledger.refused(client, kind, round, size)

    def _lacks_constants(self, reply: Reply) -> bool:
        """True if a client that was sent the constants has lost them; it is sent them again."""
        if reply.lacks != self.constants or reply.client not in self.holding:
            return False
        extra = self._log_fields("lacking", reply.client)
        log.warning("%s lacks the adapter's constants: sent again", reply.client, extra=extra)
        self.holding.discard(reply.client)
        return True

    def _log_fields(
        self, event: str, client: str, kind: str = "", round: int | None = None
    ) -> dict[str, Any]:
        """The `extra` of a log line; by default it concerns a request of this conversation."""
        number = self.round if round is None else round
        return log_fields(event, request_id(self.ledger.run_id, number, client, kind or self.kind))

    def _read(self, sender: str, message: Content) -> tuple[Reply, int]:
        """The reply in a message, and its size; a reply with an error for an unfit one."""
        layout = self.layout(sender) if sender in self._missing else {}
        with self.ledger.time("serialization"):
            try:
                refuse_large(message, layout)
            except MessageError as error:
                late = self._heading_of_other(sender, message)
                return late or self._unfit(sender, str(error)), len(message)
            try:
                reply = Reply.parse(self._spool.keep(message))
            except MessageError as error:
                return self._unfit(sender, str(error)), len(message)
        if reply.client != sender:
            reply = self._unfit(sender, f"it is in the name of {reply.client!r:.80}")
        return reply, len(message)

    def _unfit(self, sender: str, reason: str) -> Reply:
        """A reply with an error, in place of one that is refused."""
        return Reply(sender, self.kind, self.round, error=f"its reply was refused: {reason}")

    def _heading_of_other(self, sender: str, message: Content) -> Reply | None:
        """The heading of a reply to another request, which may be larger; None for one to this.

        Only a rule with phases asks a client for small messages while it may owe a large one.
        """
        has_phases = self.kind not in OWN_KINDS or self.attempt > 0
        if not has_phases or int.from_bytes(message[:8], "little") > LARGEST_HEADING:
            return None
        try:
            heading = Reply.heading(message)
        except MessageError:
            return None
        return None if self._is_due(heading) else replace(heading, client=sender)
