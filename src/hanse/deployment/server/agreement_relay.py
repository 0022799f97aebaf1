"""Pass the statements of an agreement on: clients compare their requests before they train.

The relay wraps any transport that sends all requests of a round before it waits. A client replies
to a train request with a statement. When all clients have replied, or no further reply has come for
a while, the relay sends each client the statements of all, and the client replies with its update.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from hanse.deployment.silo.agreement import LARGEST, Sent, content, sent, stated
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import AGREE, AGREED, ClientProfile, Instruction, Reply, Request
from hanse.observability.requests import SIMULATED, log_fields, request_id
from hanse.tensors.serialization import Content, MessageError

log = logging.getLogger(__name__)

SMALL = LARGEST + 64 * 1024  # bytes of the largest message that may be a statement or a refusal


@dataclass
class _Round:
    """The statements of one round.

    requests: the request to each client, against which its statement is checked.
    unanswered: the clients that have not replied to it yet.
    informed: the clients that were sent the statements of all.
    closes: when the relay stops waiting for further statements; None while there is none.
    """

    number: int
    requests: dict[str, Content] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    statements: dict[str, Tensor] = field(default_factory=dict)
    informed: set[str] = field(default_factory=set)
    closes: float | None = None


class AgreementRelay(Transport):
    """A transport whose clients exchange statements before they train.

    job: the experiment's text as it is sent to the clients.
    run: the run's name, for the names of requests.
    patience: seconds to wait for further statements after the first one; at most a third of the
        time that is left for the round's replies.
    """

    def __init__(
        self,
        inner: Transport,
        job: str,
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        run: str = SIMULATED,
    ) -> None:
        if inner.max_in_flight is not None:
            raise ValueError(
                "an agreement needs a transport that sends all requests before it waits for replies"
            )
        self._inner, self._job, self._patience, self._clock = inner, job, patience, clock
        self._run, self._round = run, _Round(0)

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: Content) -> None:
        request = Request.heading(message)
        if request.kind == "train":
            if request.round != self._round.number:
                self._round = _Round(request.round)
            self._round.unanswered.add(client)
            self._round.requests[client] = message
            self._round.informed.discard(client)  # a new request needs a new statement
        self._inner.send(client, message)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self._round = _Round(0)  # all its clients are asked again
        return self._inner.wait_for(clients, required)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        end = None if timeout is None else self._clock() + timeout
        while True:
            ends = [context for context in (end, self._round.closes) if context is not None]
            left = max(0.0, min(ends) - self._clock()) if ends else None
            reply = self._inner.receive(left)
            if reply is None:
                if self._send_statements() and (end is None or self._clock() < end):
                    continue
                return None
            client, message = reply
            statement = self._statement(client, message)
            if statement is None:
                return reply
            if error := self._reason_against(client, statement):
                self._send_if_complete()
                name = request_id(self._run, self._round.number, client, "train")
                log.warning("%s: %s", client, error, extra=log_fields("refused", name))
                return client, Reply(client, "train", self._round.number, error=error).pack()
            patience = self._patience if left is None else min(self._patience, left / 3)
            self._round.closes = self._round.closes or self._clock() + patience
            self._round.statements[client] = statement
            self._send_if_complete()

    def _statement(self, client: str, message: Content) -> Tensor | None:
        """The statement in a client's message; None for a message that the round receives."""
        if len(message) > SMALL:  # an update, which the exchange checks before it reads it
            return None
        try:
            reply = Reply.parse(message)
        except MessageError:
            return None
        current, tensors = self._round, [*reply.update.tensors.values()]
        if reply.kind == "train" and client in current.unanswered:  # it refuses to train
            current.unanswered.discard(client)
            self._send_if_complete()
        if reply.kind != AGREE or (reply.client, reply.round) != (client, current.number):
            return None
        current.unanswered.discard(client)
        return tensors[0] if len(tensors) == 1 else Tensor()

    def _reason_against(self, client: str, statement: Tensor) -> str:
        """The reason not to pass a statement on; empty if it is true.

        The server knows what it has sent. Therefore a false statement does not reach the others,
        and cannot keep them from training.
        """
        body, message = content(statement), self._round.requests.get(client)
        digests = None if body is None else stated(body)
        if message is None:
            return "it sent a statement and was not asked to train; the statement is not passed on"
        if digests is None:
            return "its statement on the model that it was sent cannot be read"
        if digests != self._sent(message):
            return "it states that it was sent another model than it was; this is not passed on"
        return ""

    def _sent(self, message: Content) -> Sent:
        """The digests that a true statement on a request has."""
        return sent(Request.parse(message), self._job)

    def _send_if_complete(self) -> None:
        """Send the statements if all clients have replied, or if a late client has stated."""
        if not self._round.unanswered or self._round.informed:
            self._send_statements()

    def _send_statements(self) -> bool:
        """Send the statements to clients that do not have them; returns true if there were any."""
        current = self._round
        waiting = [client for client in current.statements if client not in current.informed]
        for client in waiting:
            instruction = Instruction(dict(current.statements))
            self._inner.send(
                client, Request(AGREED, current.number, instruction=instruction).pack()
            )
            current.informed.add(client)
        current.closes = None
        return bool(waiting)
