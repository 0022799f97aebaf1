"""Requests to silos and their replies: sent again where one may be lost, each counted once.

A request is sent again when its silo comes back at another node or with another process, when the
engine that carries messages was restarted, or when the silo answers a hello, which it does between
two requests only, and the reply still does not come. A silo may therefore answer twice; the round
counts one of the two.
"""

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

from hanse.deployment.envelopes import HELLO, BadEnvelopeError, Envelopes, SiloReply
from hanse.deployment.server.engine import Engine
from hanse.deployment.server.model_delivery import ModelDelivery
from hanse.deployment.server.roster import RemoteClient, Roster
from hanse.deployment.server.timers import QUIET_BEFORE_HELLO, REPLY_GRACE, NodeTimers
from hanse.federation.exchange.spool import Spool
from hanse.observability.requests import log_event, log_fields, purpose
from hanse.tensors.serialization import Content

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """A message that was sent to a node and has no reply yet.

    name: the silo that it is for; empty for a hello, which asks who is at the node.
    number: the number of its envelope.
    request: the request in it; empty if it asks for the silo's profile. request_id: its name.
    at: when it was sent.
    """

    node: int
    name: str = ""
    number: int = 0
    request: Content = b""
    request_id: str = ""
    at: float = 0.0


@dataclass
class ReplyCollector:
    """Sends hellos and requests to nodes over an engine, and collects the silos' replies.

    delivery: sends the base model to silos that lack it; None if none is sent.
    replies: those that have come, with the silo's name, until they are taken out; on disk.
    answered_at: when a silo last sent a valid reply.
    """

    engine: Engine
    envelopes: Envelopes
    roster: Roster
    delivery: ModelDelivery | None = None
    timers: NodeTimers = field(default_factory=NodeTimers)
    replies: deque[tuple[str, Content]] = field(default_factory=deque)
    answered_at: float = 0.0
    _under_way: dict[int, Sent] = field(default_factory=dict)  # by ticket
    _ticket: int = 0
    _spool: Spool = field(default_factory=Spool)

    def ask(self, client: RemoteClient) -> None:
        """Send a connected silo its request."""
        assert client.node is not None and client.request is not None
        client.asked_at, client.resend_at = time.monotonic(), math.inf
        client.tries += 1
        event = "sent" if client.tries == 1 else "sent again"
        sent = purpose(client.kind), f"{len(client.request):,}"
        log_event(event, f"{event}: request %s, %s bytes", *sent, request=client.request_id)
        self._send(client, client.node, client.request)

    def mark_unknown(self, client: RemoteClient) -> None:
        """Take a silo for disconnected until it answers a hello, which is sent now."""
        if client.node is not None:
            self.timers.call(client.node, time.monotonic())
        client.node, client.session = None, ""

    def step(self, seconds: float) -> None:
        """Send the hellos that are due, and handle the events of at most so many seconds."""
        self._send_hellos()
        self._send_model()
        while (event := self.engine.event(seconds)) is not None:
            seconds = 0.0
            head, body = event
            if head["is"] == "nodes":
                self._on_nodes(head["nodes"])
            elif head["is"] == "anew":
                self._on_restart()
            elif sent := self._under_way.pop(head["ticket"], None):
                if head["is"] == "reply":
                    self._on_reply(sent, body)
                else:
                    self._on_failure(sent, head["why"])
            self._send_hellos()
            self._send_model()

    def _send_model(self) -> None:
        """Send the next parts of the model to silos that lack it."""
        for name, node, request in self.delivery.due() if self.delivery else ():
            envelope, number = self.envelopes.write(name, request)
            self._post(Sent(node, name, number), envelope)

    def _send_hellos(self) -> None:
        """Greet new nodes and silent ones, and repeat requests that count as lost."""
        now = time.monotonic()
        for client in self.roster.clients.values():
            if client.request is None or client.node is None:
                continue
            if client.resend_at <= now:
                self.ask(client)
            elif now - max(client.asked_at, client.seen_at or 0.0) > QUIET_BEFORE_HELLO:
                self.timers.call_if_idle(client.node, now)
        for node in self.timers.expired(now):
            self._post(Sent(node), HELLO)

    def _on_nodes(self, nodes: list[int]) -> None:
        """Note which nodes are connected now.

        When the node of a silo is gone, the nodes of no silo are greeted again: the silo may be at
        one of them.
        """
        now = time.monotonic()
        self.timers.set_nodes(nodes, now)
        lost = self.roster.lost_with(nodes)
        for client in lost:
            log.warning("%s is gone", client.name, extra={"silo": client.name})
        for node in {*nodes} - self.roster.nodes() if lost else ():
            self.timers.call_if_idle(node, now)

    def _on_restart(self) -> None:
        """Forget all that was under way: the engine was restarted and has lost it."""
        self._under_way.clear()
        self.timers.forget_timeouts()
        self._on_nodes([])

    def _on_reply(self, sent: Sent, body: bytes) -> None:
        """Handle a reply: to a hello, to the question for a profile, or to a request."""
        self._mark_alive(sent)
        try:
            if not sent.name:
                self._on_hello(sent, SiloReply.parse(body))
                return
            reply = self.envelopes.read(body, sent.name, sent.number)
            if self.delivery and reply.body and not (reply.error or reply.profile):
                self._on_part(self.delivery, sent, reply)
                return
            if reply.error or reply.profile is None:
                raise BadEnvelopeError(reply.error or "it declares no profile")
        except BadEnvelopeError as error:
            self.timers.refusals[sent.node] += 1
            self._on_failure(sent, str(error))
            return
        self.timers.refusals.pop(sent.node, None)
        self._accept(self.roster.clients[sent.name], sent, reply)

    def _on_part(self, delivery: ModelDelivery, sent: Sent, reply: SiloReply) -> None:
        """Let a silo that lacks the model be sent more, or ask one that has all for its profile."""
        client = self.roster.clients[sent.name]
        client.seen_at = time.monotonic()
        if delivery.take(client.name, sent.node, reply.session, reply.body):
            self._send(client, sent.node, b"")
        client.receiving = delivery.progress(client.name)
        if client.receiving is None or client.receiving[0]:  # else it has not kept anything yet
            self.timers.refusals.pop(sent.node, None)

    def _accept(self, client: RemoteClient, sent: Sent, reply: SiloReply) -> None:
        """Note where a silo is, and collect its reply."""
        connected = sent.node in self.timers  # else its node has gone since it answered
        came = connected and (client.node, client.session) != (sent.node, reply.session)
        if connected:
            client.node, client.session = sent.node, reply.session
        client.profile, client.seen_at = reply.profile, time.monotonic()
        client.receiving = None
        self.answered_at = client.seen_at
        if came:
            log.info("%s is there", client.name, extra={"silo": client.name})
        if sent.request:
            size = f"{len(reply.body):,}"
            log_event("received", "received: %s bytes", size, request=sent.request_id)
            if client.request is sent.request:  # and not a later one
                client.request, client.resend_at = None, math.inf
            self.replies.append((client.name, self._spool.keep(reply.body)))
        elif came and client.request is not None:
            self.ask(client)

    def _on_hello(self, sent: Sent, reply: SiloReply) -> None:
        """Ask the silo that a node names for its profile, by which it proves who it is."""
        client = self.roster.clients.get(reply.name)
        if client is None:
            raise BadEnvelopeError(f"{reply.name!r:.80} is no client of this experiment")
        if self.delivery and self.delivery.is_served(
            client.name, sent.node, reply.session, sent.at
        ):
            client.seen_at = time.monotonic()
            return
        if (client.node, client.session) != (sent.node, reply.session):
            self._send(client, sent.node, b"")
            return
        client.seen_at = time.monotonic()
        # It answers requests in turn: it has answered its request, or never received it.
        if client.request is not None and client.asked_at <= sent.at:
            client.resend_at = min(client.resend_at, client.seen_at + REPLY_GRACE)

    def _mark_alive(self, sent: Sent) -> None:
        """Note that a node has answered; older hellos to it need no reply any more."""
        for ticket, older in [*self._under_way.items()]:
            if older.node == sent.node and older.at <= sent.at and not older.request:
                del self._under_way[ticket]
        self.timers.answered(sent.node)

    def _on_failure(self, sent: Sent, reason: str) -> None:
        """Log why there is no valid reply, and greet the node again later."""
        extra = log_fields("failed", sent.request_id)
        if sent.name:
            extra["silo"] = sent.name
        log.warning("%s: %s", sent.name or f"node {sent.node}", reason, extra=extra)
        if self.delivery and sent.name:
            self.delivery.forget(sent.name, sent.node)
        if sent.name and self.roster.clients[sent.name].node == sent.node:
            self.mark_unknown(self.roster.clients[sent.name])
        self.timers.failed(sent.node, time.monotonic())

    def _send(self, client: RemoteClient, node: int, request: Content) -> None:
        """Send an envelope to the silo at a node; without a request it asks for the profile."""
        envelope, number = self.envelopes.write(client.name, request)
        name = client.request_id if request else ""
        self._post(Sent(node, client.name, number, request, name), envelope)

    def _post(self, sent: Sent, body: bytes) -> None:
        now = time.monotonic()
        self._ticket += 1
        self._under_way[self._ticket] = replace(sent, at=now)
        if not sent.request:
            self.timers.hello_sent(sent.node, now)
        self.engine.send(sent.node, self._ticket, body)
