"""All clients in this process, one after another; still only bytes pass between the halves."""

from collections import deque
from collections.abc import Callable, Sequence

from hanse.client import Site, respond
from hanse.interfaces import Federation
from hanse.messages import ClientProfile


class InProcess(Federation):
    """Simulated clients, made when they are first asked.

    site: makes a client's side from its name. Clients with the same settings share one base model.
    """

    def __init__(self, profiles: Sequence[ClientProfile], site: Callable[[str], Site]) -> None:
        self._profiles = list(profiles)
        self._make = site
        self._sites: dict[str, Site] = {}
        self._queue: deque[tuple[str, bytes]] = deque()

    def profiles(self) -> list[ClientProfile]:
        return list(self._profiles)

    def send(self, client: str, message: bytes) -> None:
        self._queue.append((client, message))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if not self._queue:
            return None
        client, message = self._queue.popleft()
        if client not in self._sites:
            self._sites[client] = self._make(client)
        return client, respond(self._sites[client], message)
