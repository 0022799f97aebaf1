"""Sends the experiment's base model to silos that lack it, before they load a model.

A silo that lacks the model answers the question for its profile by the model's hash. It is then
offered the files of the model folder, and sent what it lacks, chunk by chunk, by the same requests
as files of a run (`federation.delivery`), in round 0. A silo that was restarted names the bytes
that it has, and the transfer goes on from there.
"""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from hanse.content_hash import content_hash
from hanse.deployment.envelopes import BadEnvelopeError
from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.federation.delivery.file_delivery import Transfer
from hanse.federation.delivery.files import BEFORE_ROUNDS, RunFiles
from hanse.federation.messages import MOST_FILES, PREPARE, Reply
from hanse.journal.ledger import Ledger
from hanse.learners.models.sendable_files import sendable_files
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4  # silos with a chunk under way: each takes this machine four chunks of memory
STALLED = 120.0  # seconds without an answer, after which a chunk keeps no other silo waiting
SLOW = 30.0  # seconds to an answer, from which on silos that answer sooner go first
# Bytes that one silo is sent while the server runs, as a multiple of the model's, and of offers.
MOST_TIMES, OFFERS = 4, 2**20


def files_of(experiment: Experiment) -> RunFiles:
    """The files of the experiment's model folder, to be sent to silos.

    Raises UserError for a model that cannot be sent, and for clients with models of their own.
    """
    for name in experiment.participant_names:
        if "model_name_or_path" in (experiment.clients.get(name, {}).get("model") or {}):
            raise UserError(
                f"deployment.deliver_model sends all silos the same model, and clients.{name} has "
                "a model.model_name_or_path of its own; leave one of the two out."
            )
    files = sendable_files(experiment.model.model_name_or_path)
    if len(files) > MOST_FILES:
        raise UserError(
            f"the model {experiment.model.model_name_or_path} has {len(files)} files, and "
            f"{MOST_FILES} can be sent; save it with larger shards (max_shard_size)."
        )
    return RunFiles.on_disk(files)


@dataclass
class Recipient:
    """A silo that is being sent the model.

    node, session: of its process. asked_at: when it was last sent something; 0: not yet.
    under_way: whether it has not answered that yet.
    """

    node: int
    session: str
    transfer: Transfer
    asked_at: float = 0.0
    under_way: bool = False


@dataclass
class ModelDelivery:
    """The state of all transfers of a model, by silo.

    ledger: counts the bytes of the requests and of their replies.
    """

    files: RunFiles
    ledger: Ledger
    _recipients: dict[str, Recipient] = field(default_factory=dict)
    _waiting: dict[str, None] = field(default_factory=dict)  # silos that are to be sent more
    _sent: Counter[str] = field(default_factory=Counter)  # bytes, by silo
    _slow: set[str] = field(default_factory=set)  # silos whose last answer took long

    def take(self, name: str, node: int, session: str, body: bytes) -> bool:
        """Note a silo's reply; returns true if the model at the silo is complete now.

        Raises BadEnvelopeError for a reply that is none to an offer or a chunk, and from a silo
        that lacks the model still after it was sent several times.
        """
        try:
            reply = Reply.parse(body)
            if (reply.kind, reply.round) != (PREPARE, BEFORE_ROUNDS) or reply.error:
                raise MessageError("it declares no profile")
            self._note(name, len(body))
            if reply.lacks:
                self._begin(name, node, session)
                return False
            return self._go_on(name, node, session, reply)
        except MessageError as error:
            raise BadEnvelopeError(f"{error}.") from None

    def _begin(self, name: str, node: int, session: str) -> None:
        """Let a silo that lacks the model be offered its files."""
        for file in self.files.files:
            if content_hash(file.path) != file.digest:
                raise UserError(
                    f"{file.path} has changed since this server was started, and silos check its "
                    "hash; bring the former file back, or begin a new run."
                )
        if name not in self._recipients:
            size = f"{self.files.size:,}"
            log.info("%s lacks the model: %s bytes are sent unless it has a part", name, size)
        self._note_slow(name)
        self._recipients[name] = Recipient(node, session, Transfer(self.files, BEFORE_ROUNDS))
        self._send_more(name)

    def _send_more(self, name: str) -> None:
        """Let a silo be sent a message; raises MessageError if it was sent too many before."""
        if self._sent[name] > MOST_TIMES * self.files.size + OFFERS:
            raise MessageError(
                f"it was sent {self._sent[name]:,} bytes since this server was started and still "
                "lacks the model; let its owner keep the silo's state between its starts, and "
                "start the server again"
            )
        self._waiting[name] = None

    def _go_on(self, name: str, node: int, session: str, reply: Reply) -> bool:
        recipient = self._recipients.get(name)
        if recipient is None or (recipient.node, recipient.session) != (node, session):
            raise MessageError("it was sent no file")
        self._slow.discard(name)
        self._note_slow(name)
        recipient.under_way = False
        if recipient.transfer.again(reply):
            self._send_more(name)
            return False
        held = self.files.held(reply.update)
        self.forget(name, node)
        if self.files.missing(held) is not None:
            raise MessageError("it does not keep the files that it is sent")
        log.info("%s has the model", name, extra={"silo": name})
        return True

    def due(self) -> list[tuple[str, int, bytes]]:
        """The silos that are to be sent something now: name, node and request.

        Those that wait longest come first, but all that are slow come after the others.
        """
        now = time.monotonic()
        due = []
        for name in sorted(self._waiting, key=lambda name: name in self._slow):
            if self._busy(now) >= MOST_AT_ONCE:
                break
            del self._waiting[name]
            recipient = self._recipients[name]
            recipient.asked_at, recipient.under_way = now, True
            request = recipient.transfer.request(name).pack()
            self.ledger.sent(name, PREPARE, len(request))
            self._sent[name] += len(request)
            due.append((name, recipient.node, request))
        return due

    def _note_slow(self, name: str) -> None:
        """Note if a silo took long to answer, or has not answered for as long."""
        recipient = self._recipients.get(name)
        if recipient and recipient.under_way and time.monotonic() - recipient.asked_at >= SLOW:
            self._slow.add(name)

    def _busy(self, now: float) -> int:
        """The number of silos that have been sent a chunk and may still be receiving it."""
        return sum(
            recipient.under_way and now - recipient.asked_at < STALLED
            for recipient in self._recipients.values()
        )

    def is_served(self, name: str, node: int, session: str, since: float) -> bool:
        """True if this process of a silo needs no other message, after a hello sent at `since`.

        It answers messages in turn. Where it has answered a later hello, its chunk is lost.
        """
        recipient = self._recipients.get(name)
        if recipient is None or (recipient.node, recipient.session) != (node, session):
            return False
        return name in self._waiting or recipient.asked_at > since

    def progress(self, name: str) -> tuple[int, int] | None:
        """The bytes of the model that a silo has, and all; None if it is not being sent any."""
        recipient = self._recipients.get(name)
        return (sum(recipient.transfer.held), self.files.size) if recipient else None

    def forget(self, name: str, node: int) -> None:
        """End the transfer to a silo at this node, if there is one."""
        if name in self._recipients and self._recipients[name].node == node:
            self._note_slow(name)
            del self._recipients[name]
            self._waiting.pop(name, None)

    def _note(self, name: str, size: int) -> None:
        """Count the bytes of a reply; a round may have ended since its request was counted."""
        self.ledger.sent(name, PREPARE, 0)
        self.ledger.received(name, PREPARE, size, {})
