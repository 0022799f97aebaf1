"""A transport over simulated links: replies arrive in the order and at the time of a model.

The clients answer as without links, one batch after another, and replies wait on disk. Each reply
gets the time at which it would arrive if all clients had worked at the same time. The clock is that
of the model, so that nothing depends on the speed of this machine, and a resumed run has the same
late replies.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.exchange.spool import Spool
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.journal.ledger import Ledger
from hanse.randomness import RoundContext
from hanse.simulation.attacked_clients import attacked
from hanse.simulation.client_devices import ClientDevice, client_devices
from hanse.simulation.in_process import in_process
from hanse.simulation.link import Link, links, training_seconds
from hanse.tensors.serialization import Content


@dataclass
class _Exchange:
    """Requests of one kind and their replies.

    now: seconds since the exchange began. sent: by client, when its last request was sent, and its
    bytes. asked: how many requests each client has been sent. answered: the number of all replies.
    arrivals: (time, number, client, bytes) of each reply that is on its way, and `replies` the
    replies themselves; of equal times, the number of replies before it decides.
    """

    kind: str
    round: int
    ledger: Ledger
    now: float = 0.0
    sent: dict[str, tuple[float, int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    arrivals: list[tuple[float, int, str, int]] = field(default_factory=list)
    answered: int = 0
    replies: dict[str, Content] = field(default_factory=dict)
    spool: Spool = field(default_factory=Spool)


class LinkedClients(Transport):
    """Clients behind simulated links.

    inner: the clients, which answer at once. links: by client. training: simulated seconds in which
    each client trains in a round. devices: of the clients that have one, for the joules of the
    training, and for the share of the peak that it reaches.
    """

    remote, timed = False, True

    def __init__(
        self,
        inner: Transport,
        links: Mapping[str, Link],
        training: Mapping[str, float],
        seed: int,
        devices: Mapping[str, ClientDevice] | None = None,
    ) -> None:
        self._inner, self._links, self._training, self._seed = inner, links, training, seed
        self._devices = devices or {}
        self._exchanges: list[_Exchange] = []  # each began during the one before it

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def clock(self) -> float:
        return self._exchanges[-1].now

    def begin(self, kind: str, round: int, ledger: Ledger) -> None:
        self._exchanges.append(_Exchange(kind, round, ledger))

    def send(self, client: str, message: Content) -> None:
        exchange = self._exchanges[-1]
        exchange.sent[client] = exchange.now, len(message)
        exchange.asked[client] += 1
        self._inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        exchange = self._exchanges[-1]
        while exchange.answered < exchange.asked.total() and (reply := self._inner.receive(None)):
            self._put(exchange, *reply)
        if not exchange.arrivals:
            return None
        time = exchange.arrivals[0][0]
        if timeout is not None and time > exchange.now + timeout:
            exchange.now += timeout
            return None
        exchange.now, _, client, _ = heapq.heappop(exchange.arrivals)
        return client, exchange.replies.pop(client)

    def end(self) -> Sequence[tuple[str, int]]:
        exchange = self._exchanges.pop()
        exchange.ledger.simulated[exchange.kind] += exchange.now
        return [(client, size) for _, _, client, size in sorted(exchange.arrivals)]

    def _put(self, exchange: _Exchange, client: str, message: Content) -> None:
        """Put a reply on its way, and note its seconds."""
        sent, size = exchange.sent[client]
        journey = self._links[client].drawn_journey(
            size,
            len(message),
            self._training[client] if exchange.kind == "train" else 0.0,
            self._draw(exchange, client),
        )
        if exchange.kind == "train" and (device := self._devices.get(client)):
            journey = replace(journey, joules=device.joules, mfu=device.mfu)
        exchange.ledger.travelled(client, exchange.kind, journey)
        exchange.replies[client] = exchange.spool.keep(message)
        arrival = sent + journey.seconds, exchange.answered, client, len(message)
        heapq.heappush(exchange.arrivals, arrival)
        exchange.answered += 1

    def _draw(self, exchange: _Exchange, client: str) -> Random:
        """The draws of the packets that are lost on the way of one request and its reply."""
        context = RoundContext(self._seed, exchange.round, client)
        purpose = f"links/{exchange.kind}/{exchange.asked[client]}"
        return Random(context.derive(purpose))  # noqa: S311 (no secrets)


def clients_of(simulation: Simulation, folder: Path) -> Transport:
    """All clients of a simulation: behind their links, or without links as fast as they are."""
    clients = attacked(simulation, in_process(simulation, folder))
    by_name = links(simulation)
    if not by_name:
        return clients
    devices = client_devices(simulation)
    training = training_seconds(simulation, by_name, devices)
    return LinkedClients(clients, by_name, training, simulation.experiment.seed, devices)
