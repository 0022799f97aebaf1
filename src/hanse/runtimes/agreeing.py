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

    patience: seconds that those who have answered wait for the others.
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
            if not self._is_statement(*found):
                return found

    def _is_statement(self, client: str, message: bytes) -> bool:
        """Whether a message is the silos' own affair; then it is taken note of."""
        try:
            reply = Reply.parse(message)
        except MessageError:
            return False  # whoever receives it says so
        now = self._round
        if reply.kind != AGREE:
            if reply.kind == "train" and client in now.asked:  # it refuses to train
                now.asked.discard(client)
                self._tell_if_all()
            return False
        if reply.client == client and reply.round == now.number and len(reply.update.tensors) == 1:
            now.asked.discard(client)
            now.statements[client] = next(iter(reply.update.tensors.values()))
            now.closes = now.closes or self._clock() + self._patience
            self._tell_if_all()
        return True

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
