"""Sends a run's files to its clients before they train: one chunk to one client at a time."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hanse.federation.delivery.files import RunFiles
from hanse.federation.exchange.conversation import Conversation
from hanse.federation.messages import PREPARE, Reply, Request
from hanse.federation.run import Run
from hanse.observability.progress import report
from hanse.observability.requests import log_fields, request_id
from hanse.observability.steps import Activity, Work
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)

MB = 10**6  # bytes


@dataclass
class FileDelivery:
    """Sends the files of a run to clients of one round.

    A client that refuses them, or does not answer in time, is left out of the round; the next round
    goes on with what it has.

    silent: the clients that did not answer in time.
    """

    run: Run
    round: int
    silent: list[str] = field(default_factory=list)

    def lacking(self, reply: Reply) -> bool:
        """True if a client that was sent the files says that it has lost one."""
        lost = reply.lacks in self.run.files.hashes.values() and reply.client in self.run.holders
        if lost:
            extra = self._log_fields("lacking", reply.client)
            log.warning("%s lacks a file: sent again", reply.client, extra=extra)
            self.run.holders.discard(reply.client)
        return lost

    def deliver(self, clients: Sequence[str]) -> list[str]:
        """Send the files to those of these clients that lack any; return those that have all."""
        files, holders = self.run.files, self.run.holders
        if not files.files:
            return [*clients]
        offer, lacking = files.offer(self.round), []
        asked = [client for client in clients if client not in holders]
        for reply in self._replies(asked, lambda client: offer):
            if files.missing(files.held(reply.update)) is None:
                self._note_holder(reply.client)
            else:
                lacking.append(reply.client)
        for client in lacking:
            self._complete(client)
        return [client for client in clients if client in holders]

    def _complete(self, client: str) -> None:
        """Send a client what it lacks still: clients before it may be on the same machine."""
        transfer = Transfer(self.run.files, self.round)
        for reply in self._replies([client], transfer.request, transfer.again):
            if self.run.files.missing(transfer.held) is None:
                self._note_holder(client)
            else:
                self._refuse(reply, 0, "it does not keep what it is sent")

    def _note_holder(self, client: str) -> None:
        self.run.holders.add(client)
        extra = self._log_fields("accepted", client)
        log.info("round %d: %s has the run's files", self.round, client, extra=extra)

    def _replies(
        self,
        clients: Sequence[str],
        request: Callable[[str], Request],
        again: Callable[[Reply], bool] = lambda reply: False,
    ) -> Iterator[Reply]:
        """Each client's last valid reply; a reason against one goes to log and ledger."""
        ledger = self.run.journal.ledger
        conversation = Conversation(
            *(self.run.transport, ledger, PREPARE, self.round, clients, request),
            lambda name: self.run.files.layout,
            deadline=self.run.schedule.deadline,
            again=again,
        )
        for reply, size in conversation.replies() if clients else ():
            if reason := reply.error or self._reason_against(reply):
                self._refuse(reply, size, reason)
            else:
                ledger.received(reply.client, PREPARE, size, {})
                yield reply
        self.silent += conversation.silent

    def _reason_against(self, reply: Reply) -> str:
        try:
            self.run.files.held(reply.update)
        except MessageError as error:
            return f"its reply was refused: {error}"
        return ""

    def _refuse(self, reply: Reply, size: int, error: str) -> None:
        """Write into log and ledger why a client does not have the files."""
        self.run.journal.ledger.received(reply.client, PREPARE, size, {}, error=error)
        extra = self._log_fields("refused", reply.client)
        log.warning("%s did not take the files: %s", reply.client, error, extra=extra)

    def _log_fields(self, event: str, client: str) -> dict[str, Any]:
        run_id = self.run.journal.ledger.run_id
        return log_fields(event, request_id(run_id, self.round, client, PREPARE))


@dataclass
class Transfer:
    """The files on their way to one client.

    held: how many bytes of each the client has; empty before its first reply.
    """

    files: RunFiles
    round: int
    held: Sequence[int] = ()
    _chunks_left: int = field(init=False)

    def __post_init__(self) -> None:
        self._chunks_left = 2 * self.files.chunks  # a file with a wrong hash is sent once more

    def request(self, client: str) -> Request:
        """The offer of all files, or else the next chunk."""
        file = self.files.missing(self.held) if self.held else None
        if file is None:
            return self.files.offer(self.round)
        held, self._chunks_left = self.held[self.files.files.index(file)], self._chunks_left - 1
        done, total = (round(size / MB) for size in (held, file.size))
        report(Work(Activity.SENDING_FILE, f"{file.name} to {client}", done, max(1, total), "MB"))
        return self.files.part(self.round, file, held)

    def again(self, reply: Reply) -> bool:
        """Note what the client has; return true if another chunk is to be sent."""
        try:
            held = self.files.held(reply.update)
        except MessageError:
            return False
        if reply.error:
            return False
        self.held = held
        return self.files.missing(held) is not None and self._chunks_left > 0
