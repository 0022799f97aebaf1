"""Clients that agree on what they were sent before they train; the server only passes it on.

It stands around any federation that sends all of a round's requests before it waits. A client
answers a train request with a statement; when all that were asked have answered, or no other answer
came for a while, each is sent the statements of all, and answers with its update.
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
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)

SMALL = LARGEST + 64 * 1024  # bytes of a message that may be a statement, or a refusal


@dataclass
class _Round:
    """One round's statements. asked: those that have not answered; told: those that were sent.

    requests: what each was asked, by which a statement is checked.
    """

    number: int
    requests: dict[str, bytes] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    statements: dict[str, Tensor] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    closes: float | None = None  # when it is no longer waited for more


class Agreeing(Transport):
    """A federation whose clients exchange statements.

    job: the experiment's text, as clients are sent it.
    run: the run's name, for the names of requests.
    patience: seconds that those who have answered wait for the others, unless a third of the time
        that they have to train is less.
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
            raise ValueError("clients can agree only if all are asked before any has to answer")
        self._inner, self._job, self._patience, self._clock = inner, job, patience, clock
        self._run, self._round = run, _Round(0)

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind == "train":
            if request.round != self._round.number:
                self._round = _Round(request.round)
            self._round.asked.add(client)
            self._round.requests[client] = message
            self._round.told.discard(client)  # who is asked again states again
        self._inner.send(client, message)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self._round = _Round(0)  # it is asked again
        return self._inner.wait_for(clients, required)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        end = None if timeout is None else self._clock() + timeout
        while True:
            ends = [context for context in (end, self._round.closes) if context is not None]
            left = max(0.0, min(ends) - self._clock()) if ends else None
            found = self._inner.receive(left)
            if found is None:
                if self._tell() and (end is None or self._clock() < end):
                    continue
                return None
            client, message = found
            statement = self._statement(client, message)
            if statement is None:
                return found
            if said := self._false(client, statement):
                self._tell_if_all()
                name = request_id(self._run, self._round.number, client, "train")
                log.warning("%s: %s", client, said, extra=log_fields("refused", name))
                return client, Reply(client, "train", self._round.number, error=said).pack()
            patience = self._patience if left is None else min(self._patience, left / 3)
            self._round.closes = self._round.closes or self._clock() + patience
            self._round.statements[client] = statement
            self._tell_if_all()

    def _statement(self, client: str, message: bytes) -> Tensor | None:
        """What a client states; None if its message is something else, which others receive."""
        if len(message) > SMALL:  # an update, which the exchange checks before it is read
            return None
        try:
            reply = Reply.parse(message)
        except MessageError:
            return None
        now, tensors = self._round, [*reply.update.tensors.values()]
        if reply.kind == "train" and client in now.asked:  # it refuses to train
            now.asked.discard(client)
            self._tell_if_all()
        if reply.kind != AGREE or (reply.client, reply.round) != (client, now.number):
            return None
        now.asked.discard(client)
        return tensors[0] if len(tensors) == 1 else Tensor()

    def _false(self, client: str, statement: Tensor) -> str:
        """Why a statement is not passed on; empty for a true one.

        The server knows what it has sent, so a silo that states otherwise costs the others nothing.
        """
        body, message = content(statement), self._round.requests.get(client)
        theirs = None if body is None else stated(body)
        if message is None:
            return (
                "it states what it was sent to train, and was not asked to: this is not passed on"
            )
        if theirs is None:
            return "what it stated of the model that it was sent is no statement"
        if theirs != self._sent(message):
            return "it states that it was sent another model than it was: this is not passed on"
        return ""

    def _sent(self, message: bytes) -> Sent:
        return sent(Request.parse(message), self._job)

    def _tell_if_all(self) -> None:
        """Who states late, when the others were told, is told at once."""
        if not self._round.asked or self._round.told:
            self._tell()

    def _tell(self) -> bool:
        """Send the statements to those that were not sent them; whether there were any."""
        now = self._round
        waiting = [client for client in now.statements if client not in now.told]
        for client in waiting:
            instruction = Instruction(dict(now.statements))
            self._inner.send(client, Request(AGREED, now.number, instruction=instruction).pack())
            now.told.add(client)
        now.closes = None
        return bool(waiting)
