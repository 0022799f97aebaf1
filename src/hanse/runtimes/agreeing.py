"""Clients that agree on what they were sent before they train; the server only passes it on.

It stands around any federation that sends all of a round's requests before it waits. A client
answers a train request with a statement; when all that were asked have answered, or no other answer
came for a while, each is sent the statements of all, and answers with its update.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from hanse.interfaces import Federation
from hanse.messages import AGREE, AGREED, ClientProfile, MessageError, Order, Reply, Request
from hanse.silo.agreement import content


@dataclass
class _Round:
    """One round's statements. asked: those that have not answered; told: those that were sent."""

    number: int
    asked: set[str] = field(default_factory=set)
    statements: dict[str, Tensor] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    closes: float | None = None  # when it is no longer waited for more


class Agreeing(Federation):
    """A federation whose clients exchange statements.

    patience: seconds that those who have answered wait for the others, unless a third of the time
        that they have to train is less.
    """

    def __init__(
        self,
        inner: Federation,
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if inner.ahead is not None:
            raise ValueError("clients can agree only if all are asked before any has to answer")
        self._inner, self._patience, self._clock = inner, patience, clock
        self._round = _Round(0)

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind == "train":
            if request.round != self._round.number:
                self._round = _Round(request.round)
            self._round.asked.add(client)
            self._round.told.discard(client)  # who is asked again states again
        self._inner.send(client, message)

    def gather(self, clients: Sequence[str], enough: int) -> bool:
        self._round = _Round(0)  # it is asked again
        return self._inner.gather(clients, enough)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        end = None if timeout is None else self._clock() + timeout
        while True:
            ends = [moment for moment in (end, self._round.closes) if moment is not None]
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
            if content(statement) is None:
                self._tell_if_all()
                said = "what it stated of the model that it was sent is no statement"
                return client, Reply(client, "train", self._round.number, error=said).pack()
            patience = self._patience if left is None else min(self._patience, left / 3)
            self._round.closes = self._round.closes or self._clock() + patience
            self._round.statements[client] = statement
            self._tell_if_all()

    def _statement(self, client: str, message: bytes) -> Tensor | None:
        """What a client states; None if its message is something else, which others receive."""
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

    def _tell_if_all(self) -> None:
        """Who states late, when the others were told, is told at once."""
        if not self._round.asked or self._round.told:
            self._tell()

    def _tell(self) -> bool:
        """Send the statements to those that were not sent them; whether there were any."""
        now = self._round
        waiting = [client for client in now.statements if client not in now.told]
        for client in waiting:
            order = Order(dict(now.statements))
            self._inner.send(client, Request(AGREED, now.number, order=order).pack())
            now.told.add(client)
        now.closes = None
        return bool(waiting)
