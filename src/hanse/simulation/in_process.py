"""All clients in this process; still only bytes pass between the halves."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.learners.batched_clients.train import train
from hanse.simulation.rendezvous import Rendezvous


class InProcess(Transport):
    """Simulated clients, made when they are asked; those with a session are kept.

    site: makes a client's side from its name. Clients with the same settings share one base model.
    rendezvous: where clients wait to train together; clients_per_pass: how many answer at a time.
    """

    remote = False

    def __init__(
        self,
        profiles: Sequence[ClientProfile],
        site: Callable[[str], ClientEndpoint],
        rendezvous: Rendezvous[Any, Any] | None = None,
        clients_per_pass: int = 1,
    ) -> None:
        self._profiles = list(profiles)
        self._make = site
        self._rendezvous = rendezvous
        self._clients_per_pass = clients_per_pass
        self.max_in_flight = clients_per_pass  # each waiting request is an adapter in memory
        self._sites: dict[str, ClientEndpoint] = {}  # those with a session
        self._queue: deque[tuple[str, bytes]] = deque()
        self._replies: deque[tuple[str, bytes]] = deque()

    def profiles(self) -> list[ClientProfile]:
        return list(self._profiles)

    def send(self, client: str, message: bytes) -> None:
        self._queue.append((client, message))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if not self._replies:
            self._answer(
                [
                    self._queue.popleft()
                    for _ in range(min(self._clients_per_pass, len(self._queue)))
                ]
            )
        return self._replies.popleft() if self._replies else None

    def _answer(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Let clients answer, so that those that train do it together."""
        sites = {client: self._sites.get(client) or self._make(client) for client, _ in messages}
        calls = [partial(respond, sites[client], message) for client, message in messages]
        run = self._rendezvous.run if self._rendezvous else lambda calls: [call() for call in calls]
        names = [client for client, _ in messages]
        self._replies.extend(zip(names, run(calls), strict=True))
        self._sites |= {client: site for client, site in sites.items() if site.session}


def in_process(simulation: Simulation, folder: Path) -> InProcess:
    """All clients of a simulation in this process; their memories are below a run's folder."""
    size = simulation.experiment.clients_per_pass
    rendezvous = None if size == "off" else Rendezvous(train)
    site = partial(
        simulation.site, folder / "clients", together=rendezvous.meet if rendezvous else None
    )
    return InProcess(simulation.profiles, site, rendezvous, size if isinstance(size, int) else 1)
