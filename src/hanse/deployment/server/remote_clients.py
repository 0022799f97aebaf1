"""The transport of a deployment: clients on other machines, behind an engine that carries bytes."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from hanse.deployment.envelopes import Envelopes
from hanse.deployment.server.engine import Engine
from hanse.deployment.server.model_delivery import ModelDelivery
from hanse.deployment.server.replies import ReplyCollector
from hanse.deployment.server.roster import Roster
from hanse.deployment.server.timers import RETRY_AFTER, RoundPauses
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Request
from hanse.observability import step_text
from hanse.observability.progress import report, watched
from hanse.observability.steps import WaitingForSilos
from hanse.tensors.serialization import Content

log = logging.getLogger(__name__)

LOG_EVERY = 10.0  # seconds between two lines that name the silos that are waited for
STEP = 0.5  # longest wait for one event, in seconds


@dataclass
class RemoteClients(Transport):
    """The silos of a federation, over an engine.

    names: of those that take part, in client order.
    envelopes: writes the messages to silos, and reads their replies.
    required_to_begin: the number of silos that must have joined for a run to begin when `patience`
        seconds are over; without patience it waits for all.
    delivery: sends the base model to silos that lack it; None if none is sent.
    stop: whether the user has asked to stop. A server that only waits for silos then stops at once,
        as by Ctrl-C.
    paused: whether the run waits, since a round needs more silos than are connected.
    """

    remote: ClassVar[bool] = True

    engine: Engine
    names: Sequence[str]
    envelopes: Envelopes
    required_to_begin: int
    patience: float | None = None
    delivery: ModelDelivery | None = None
    stop: Callable[[], bool] = lambda: False
    paused: bool = False
    roster: Roster = field(init=False)
    _collector: ReplyCollector = field(init=False)
    _pauses: RoundPauses = field(default_factory=RoundPauses)
    _awaited: Sequence[str] = ()  # the silos that must join before a run or a round can begin
    _logged_at: float = 0.0

    def __post_init__(self) -> None:
        self.roster = Roster(self.names)
        self._collector = ReplyCollector(self.engine, self.envelopes, self.roster, self.delivery)
        self._awaited = [*self.names]

    def profiles(self) -> list[ClientProfile]:
        """The silos known so far; the first call waits until they have joined."""
        begun = time.monotonic()
        while unknown := self.roster.without_profile():
            late = self.patience is not None and time.monotonic() - begun > self.patience
            if late and len(self.roster) - len(unknown) >= self.required_to_begin:
                break
            self._wait(unknown)
        self._awaited = ()
        self._collector.step(0.0)
        return self.roster.profiles()

    def send(self, client: str, message: Content) -> None:
        remote, request = self.roster.clients[client], Request.heading(message)
        remote.request, remote.kind = message, request.kind
        remote.request_id = request.id(self.envelopes.envelope.run, client)
        remote.requested_at, remote.tries = time.monotonic(), 0
        if remote.node is not None:
            self._collector.ask(remote)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        end = math.inf if timeout is None else time.monotonic() + timeout
        replies = self._collector.replies
        while not replies:
            left = end - time.monotonic()
            # A reply that has come in time counts, even if it is read late.
            self._collector.step(max(0.0, min(STEP, left)))
            if left <= 0 and not replies:
                return None
            self._log_waiting(owing := self.waiting_for)
            if owing and self.roster.away(owing) == owing:
                self._stop_if_asked()
        return replies.popleft()

    @property
    def waiting_for(self) -> list[str]:
        """The silos that must join, or owe a reply."""
        return [*self._awaited] or self.roster.owing()

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        """Wait until the required number of these silos is connected.

        A silo that owes a reply counts as connected when it has said hello again.

        If all have answered, but too few usably, each wait is longer than the one before, unless
        one of them was restarted.
        """
        self.paused = True
        self._pause(clients)
        while away := self.roster.away(clients):
            if len(clients) - len(away) >= required:
                break
            self._wait(away, required=required)
        self.paused, self._awaited = False, ()
        return True

    def _pause(self, names: Sequence[str]) -> None:
        """Give up the requests that are not answered, and wait until it is time to ask again."""
        clients = [self.roster.clients[name] for name in names]
        sessions = {client.name: client.session for client in clients}
        owing = [client for client in clients if client.request is not None]
        pause = RETRY_AFTER if owing else self._pauses.next(self.envelopes.round)
        for client in owing:
            self._collector.mark_unknown(client)
            client.request = None
        begun = time.monotonic()
        while (spent := time.monotonic() - begun) < pause:
            self._collector.step(STEP)
            self._stop_if_asked()
            restarted = any(c.session not in ("", sessions[c.name]) for c in clients)
            if spent > RETRY_AFTER and restarted:
                break

    def _wait(self, names: Sequence[str], required: int = 0) -> None:
        """Handle events for a moment, while these silos must join."""
        self._awaited = names
        self._collector.step(STEP)
        self._log_waiting(names, required)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.stop():
            raise KeyboardInterrupt

    def _log_waiting(self, names: Sequence[str], required: int = 0) -> None:
        """Report the silos that are waited for, and what each is doing.

        A live view repeats the report itself; without one, a line is logged every ten seconds.
        """
        now = time.monotonic()
        silos = tuple(self.roster.clients[name].activity(now) for name in names)
        step = WaitingForSilos(silos, len(self.roster), required)
        if names and watched():
            report(step)
        elif names and now - max(self._logged_at, self._collector.answered_at) > LOG_EVERY:
            self._logged_at = now
            log.info("%s (%s)", step_text.title(step), step_text.detail(step))
