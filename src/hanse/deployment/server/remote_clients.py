"""Clients on other machines, as the federated loop sees them: who is there, and who must be asked.

It says who it is waiting for by name. A request is sent again whenever it may have been lost: when
its silo comes back with another node or another process, when the engine that carries messages was
started anew, or when a silo says that it is there, which it does between two requests only, and
its answer still does not come. So a silo may answer twice; the exchange counts each once.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from hanse.deployment.envelopes import WHO, Envelopes, RefusedError, SiloReply
from hanse.deployment.server.engine import Engine
from hanse.deployment.server.roster import RemoteClient, Sent, doing, longer
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Request
from hanse.observability.progress import report, watched

log = logging.getLogger(__name__)

PROBE = 20.0  # seconds without a word from a silo, after which it is asked whether it is there
LOST = 30.0  # seconds without an answer after which a node is greeted again; then twice as many
GRACE = 10.0  # seconds that an answer may take longer than a later one before it counts as lost
AGAIN = 5.0  # seconds after which who did not answer well is asked again; then twice as many
RARELY = 60.0, 300.0  # at most so many, until a node is greeted, and until a round is asked again
TELL = 10.0  # seconds between two lines that say who is waited for
STEP = 0.5  # longest wait for one event, in seconds


@dataclass
class RemoteClients(Transport):
    """The silos of a federation, over an engine.

    names: of those that take part, in client order.
    letters: writes what silos are asked, and reads their answers.
    enough: how many must be there for a run to begin when `patience` seconds are over; without
        patience it waits for all.
    stop: whether somebody has asked to stop; what only waits ends at once then, as by Ctrl-C.
    """

    remote: ClassVar[bool] = True

    engine: Engine
    names: Sequence[str]
    letters: Envelopes
    enough: int
    patience: float | None = None
    stop: Callable[[], bool] = lambda: False
    seats: dict[str, RemoteClient] = field(init=False)
    _due: dict[int, float] = field(default_factory=dict)  # by node: when to greet it (again)
    _backoff: dict[int, float] = field(default_factory=dict)  # by node: seconds until then
    _refusals: Counter[int] = field(default_factory=Counter)  # by node, since it answered well
    _pauses: Counter[int] = field(default_factory=Counter)  # by round, since all answered, but ill
    _under_way: dict[int, Sent] = field(default_factory=dict)  # by ticket
    _ticket: int = 0
    _replies: deque[tuple[str, bytes]] = field(default_factory=deque)
    _told: float = 0.0  # when it was last said who is waited for, or no need was
    paused: bool = False  # since a round needs more silos than are there
    _awaited: Sequence[str] = ()  # who must come before a run or a round can begin

    def __post_init__(self) -> None:
        self.seats = {name: RemoteClient(name) for name in self.names}
        self._awaited = [*self.names]

    def profiles(self) -> list[ClientProfile]:
        """Those known so far; at first, wait for all, or for enough when patience is over."""
        begun = time.monotonic()
        while unknown := [seat.name for seat in self.seats.values() if seat.profile is None]:
            late = self.patience is not None and time.monotonic() - begun > self.patience
            if late and len(self.seats) - len(unknown) >= self.enough:
                break
            self._wait(unknown)
        self._awaited = ()
        self._step(0.0)
        return [seat.profile for seat in self.seats.values() if seat.profile is not None]

    def send(self, client: str, message: bytes) -> None:
        seat = self.seats[client]
        seat.request, seat.kind = message, Request.parse(message).kind
        seat.since = time.monotonic()
        if seat.node is not None:
            self._ask(seat)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self._replies:
            left = end - time.monotonic()
            self._step(max(0.0, min(STEP, left)))  # what has come in time counts, if read late
            if left <= 0 and not self._replies:
                return None
            self._tell(owing := self.waiting_for)
            if owing and all(self.seats[name].node is None for name in owing):
                self._heed()
        return self._replies.popleft()

    @property
    def waiting_for(self) -> list[str]:
        """The silos that must come, or owe an answer."""
        owing = [seat.name for seat in self.seats.values() if seat.request is not None]
        return [*self._awaited] or owing

    def wait_for(self, clients: Sequence[str], enough: int) -> bool:
        """Wait until enough of these are there; who owes an answer must first say that it is.

        If all have answered, but not as was needed, they are asked later and later, or as soon as
        one of them was started anew.
        """
        seats = [self.seats[name] for name in clients]
        former = {seat.name: seat.session for seat in seats}
        pause = AGAIN
        if all(seat.request is None for seat in seats):
            pause = longer(AGAIN, self._pauses[self.letters.round], RARELY[1])
            self._pauses[self.letters.round] += 1
        for seat in seats:
            if seat.request is not None:
                self._doubt(seat)
                seat.request = None
        self.paused, begun = True, time.monotonic()
        while (spent := time.monotonic() - begun) < pause:
            self._step(STEP)
            self._heed()
            if spent > AGAIN and any(seat.session not in ("", former[seat.name]) for seat in seats):
                break
        while away := [seat.name for seat in seats if seat.node is None]:
            if len(clients) - len(away) >= enough:
                break
            self._wait(away, f"paused, since a round needs {enough}: ")
        self.paused, self._awaited = False, ()
        return True

    def _wait(self, names: Sequence[str], before: str = "") -> None:
        """Wait a moment for silos that must come."""
        self._awaited = names
        self._step(STEP)
        self._tell(names, before)
        self._heed()

    def _heed(self) -> None:
        if self.stop():
            raise KeyboardInterrupt

    def _step(self, seconds: float) -> None:
        """Greet who must be, and take what happens within so many seconds."""
        self._greet()
        while (event := self.engine.event(seconds)) is not None:
            seconds = 0.0
            head, body = event
            if head["is"] == "nodes":
                self._look(head["nodes"])
            elif head["is"] == "anew":
                self._begin_anew()
            elif sent := self._under_way.pop(head["ticket"], None):
                if head["is"] == "reply":
                    self._take(sent, body)
                else:
                    self._miss(sent, head["why"])
            self._greet()

    def _greet(self) -> None:
        """Ask nodes who they are: new ones, and those that are waited for and say nothing."""
        now = time.monotonic()
        for seat in self.seats.values():
            if seat.request is None or seat.node is None:
                continue
            if seat.again <= now:
                self._ask(seat)
            elif (
                now - max(seat.asked, seat.seen or 0.0) > PROBE
                and self._due.get(seat.node) == math.inf
            ):
                self._due[seat.node] = now
        for node, due in self._due.items():
            if due <= now:
                self._post(Sent(node), WHO)

    def _look(self, nodes: Sequence[int]) -> None:
        """These nodes are there now, and no others."""
        now = time.monotonic()
        self._due = {node: self._due.get(node, now) for node in nodes}
        self._refusals = Counter({n: c for n, c in self._refusals.items() if n in self._due})
        for seat in self.seats.values():
            if seat.node is not None and seat.node not in self._due:
                log.warning("%s is gone", seat.name, extra={"silo": seat.name})
                seat.node = None
                self._greet_strangers(now)

    def _greet_strangers(self, now: float) -> None:
        """Greet the nodes of no silo again: one may be there for the silo whose node is gone."""
        taken = {seat.node for seat in self.seats.values()}
        for node, due in self._due.items():
            if node not in taken and due == math.inf:
                self._due[node] = now

    def _begin_anew(self) -> None:
        """All that was under way is lost."""
        self._under_way.clear()
        self._backoff.clear()
        self._look([])

    def _take(self, sent: Sent, body: bytes) -> None:
        """An answer has come."""
        self._hear(sent)
        try:
            if not sent.name:
                self._meet(sent, SiloReply.parse(body))
                return
            answer = self.letters.read(body, sent.name, sent.number)
            if answer.error or answer.profile is None:
                raise RefusedError(answer.error or "it says nothing of itself")
        except RefusedError as error:
            self._refusals[sent.node] += 1
            self._miss(sent, str(error))
            return
        seat = self.seats[sent.name]
        there = sent.node in self._due  # else it has answered, and is gone
        fresh = there and (seat.node, seat.session) != (sent.node, answer.session)
        if there:
            seat.node, seat.session = sent.node, answer.session
        self._refusals.pop(sent.node, None)
        seat.profile, seat.seen = answer.profile, time.monotonic()
        self._told = seat.seen
        if fresh:
            log.info("%s is there", seat.name, extra={"silo": seat.name})
        if sent.request:
            if seat.request is sent.request:  # and not a later one
                seat.request, seat.again = None, math.inf
            self._replies.append((seat.name, answer.body))
        elif fresh and seat.request is not None:
            self._ask(seat)

    def _meet(self, sent: Sent, answer: SiloReply) -> None:
        """A node has said who it is, which it must prove by its answer to a letter."""
        seat = self.seats.get(answer.name)
        if seat is None:
            raise RefusedError(f"{answer.name!r:.80} is no client of this experiment")
        if (seat.node, seat.session) != (sent.node, answer.session):
            self._write(seat, sent.node, b"")
            return
        seat.seen = time.monotonic()
        if seat.request is not None and seat.asked <= sent.at:  # it has answered, or never heard
            seat.again = min(seat.again, seat.seen + GRACE)

    def _hear(self, sent: Sent) -> None:
        """A node has answered; what it was greeted with before, it has answered or never will."""
        for ticket, older in [*self._under_way.items()]:
            if older.node == sent.node and older.at <= sent.at and not older.request:
                del self._under_way[ticket]
        self._backoff.pop(sent.node, None)
        if sent.node in self._due:
            self._due[sent.node] = math.inf

    def _miss(self, sent: Sent, why: str) -> None:
        """There is no answer; whoever is at the node will be greeted again."""
        who = {"silo": sent.name} if sent.name else {}
        log.warning("%s: %s", sent.name or f"node {sent.node}", why, extra=who)
        if sent.name and self.seats[sent.name].node == sent.node:
            self._doubt(self.seats[sent.name])
        if sent.node in self._due:
            pause = longer(AGAIN, max(0, self._refusals[sent.node] - 1), RARELY[0])
            self._due[sent.node] = time.monotonic() + pause

    def _doubt(self, seat: RemoteClient) -> None:
        """Nobody knows whether a silo is there, until it answers again."""
        if seat.node in self._due:
            self._due[seat.node] = time.monotonic()
        seat.node, seat.session = None, ""

    def _ask(self, seat: RemoteClient) -> None:
        """Send a silo its request."""
        assert seat.node is not None and seat.request is not None
        seat.asked, seat.again = time.monotonic(), math.inf
        self._write(seat, seat.node, seat.request)

    def _write(self, seat: RemoteClient, node: int, request: bytes) -> None:
        letter, number = self.letters.write(seat.name, request)
        self._post(Sent(node, seat.name, number, request), letter)

    def _post(self, sent: Sent, body: bytes) -> None:
        now = time.monotonic()
        self._ticket += 1
        self._under_way[self._ticket] = replace(sent, at=now)
        if not sent.request and sent.node in self._due:
            pause = self._backoff.get(sent.node, LOST)
            self._due[sent.node], self._backoff[sent.node] = now + pause, 2 * pause
        self.engine.send(sent.node, self._ticket, body)

    def _tell(self, names: Sequence[str], before: str = "") -> None:
        """Say who is waited for, and what each is doing; a view says it again after a silence."""
        now = time.monotonic()
        said = f"{before}waiting for {len(names)} of {len(self.seats)}: {', '.join(names)}"
        each = "; ".join(f"{name} {doing(self.seats[name], now)}" for name in names)
        if names and watched():
            report(said, detail=each)
        elif names and now - self._told > TELL:
            self._told = now
            log.info("%s (%s)", said, each)
