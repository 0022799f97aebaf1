"""A transport to clients in this process. Even here only bytes pass between client and server."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.learners.batched_clients.train import train
from hanse.simulation.rendezvous import Rendezvous
from hanse.tensors.serialization import Content


class InProcess(Transport):
    """Simulated clients. An endpoint is made for each request, and kept if it has a session.

    endpoint: makes a client's endpoint from its name. Clients with the same settings share one
        base model.
    rendezvous: where clients wait for each other, to train in one batch.
    clients_per_pass: how many clients answer at a time.
    """

    remote = timed = False

    def __init__(
        self,
        profiles: Sequence[ClientProfile],
        endpoint: Callable[[str], ClientEndpoint],
        rendezvous: Rendezvous[Any, Any] | None = None,
        clients_per_pass: int = 1,
    ) -> None:
        self._profiles = list(profiles)
        self._make = endpoint
        self._rendezvous = rendezvous
        # Each request in flight holds an adapter in memory.
        self._clients_per_pass = self.max_in_flight = clients_per_pass
        self._endpoints: dict[str, ClientEndpoint] = {}  # those with a session
        self._queue: deque[tuple[str, Content]] = deque()
        self._replies: deque[tuple[str, bytes]] = deque()

    def profiles(self) -> list[ClientProfile]:
        return list(self._profiles)

    def send(self, client: str, message: Content) -> None:
        self._queue.append((client, message))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if not self._replies:
            number = min(self._clients_per_pass, len(self._queue))
            self._answer([self._queue.popleft() for _ in range(number)])
        return self._replies.popleft() if self._replies else None

    def _answer(self, messages: Sequence[tuple[str, Content]]) -> None:
        """Let clients answer; those that train do it in one batch."""
        names = [client for client, _ in messages]
        endpoints = {name: self._endpoints.get(name) or self._make(name) for name in names}
        calls = [partial(respond, endpoints[name], message) for name, message in messages]
        run = self._rendezvous.run if self._rendezvous else lambda calls: [call() for call in calls]
        self._replies.extend(zip(names, run(calls), strict=True))
        self._endpoints |= {n: endpoint for n, endpoint in endpoints.items() if endpoint.session}


def in_process(simulation: Simulation, folder: Path) -> InProcess:
    """All clients of a simulation in this process; their memories are below a run's folder."""
    size = simulation.experiment.clients_per_pass
    rendezvous = None if size == "off" else Rendezvous(train)
    together = rendezvous.meet if rendezvous else None

    def endpoint(name: str) -> ClientEndpoint:
        client = simulation.endpoint(folder / "clients", name, together=together)
        return replace(client, identity=simulation.identity(name))

    number = size if isinstance(size, int) else 1
    return InProcess(simulation.profiles, endpoint, rendezvous, number)
