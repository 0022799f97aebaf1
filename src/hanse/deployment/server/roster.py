"""The silos of a federation as the server knows them: where each one is, and what it is doing."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hanse.federation.messages import ClientProfile
from hanse.observability.steps import SiloActivity, SiloState
from hanse.tensors.serialization import Content


@dataclass
class RemoteClient:
    """One silo, as far as the server knows it.

    node: the node at which it is connected; None while it is not.
    session: identifies its process. A silo with another session has forgotten its last request.
    seen_at: when anything came from it last. asked_at: when its request was last sent.
    resend_at: when its request counts as lost and is sent again.
    request: the request that it has not answered yet. kind, request_id: of that request.
    requested_at: when that request was handed over. tries: how often it has been sent.
    receiving: the bytes of the model that it has been sent, and all; None if it is sent none.
    """

    name: str
    node: int | None = None
    session: str = ""
    seen_at: float | None = None
    asked_at: float = 0.0
    resend_at: float = math.inf
    profile: ClientProfile | None = None
    request: Content | None = None
    kind: str = ""
    request_id: str = ""
    requested_at: float = 0.0
    tries: int = 0
    receiving: tuple[int, int] | None = None

    def activity(self, now: float) -> SiloActivity:
        """The silo's activity, as far as the server can tell, and for how long it has lasted."""
        if self.node is None:
            if self.seen_at is None:
                return SiloActivity(self.name, SiloState.NEVER_SEEN)
            if self.receiving is not None:
                silent, (done, total) = now - self.seen_at, self.receiving
                return SiloActivity(self.name, SiloState.RECEIVING, silent, done=done, total=total)
            return SiloActivity(self.name, SiloState.GONE, now - self.seen_at)
        if self.request is None:
            return SiloActivity(self.name, SiloState.IDLE)
        return SiloActivity(self.name, SiloState.WORKING, now - self.requested_at, self.kind)


class Roster:
    """All silos that may take part, by name and in client order."""

    def __init__(self, names: Sequence[str]) -> None:
        self.clients = {name: RemoteClient(name) for name in names}

    def __len__(self) -> int:
        return len(self.clients)

    def profiles(self) -> list[ClientProfile]:
        """The profiles of the silos that have sent one."""
        return [client.profile for client in self.clients.values() if client.profile is not None]

    def without_profile(self) -> list[str]:
        """The silos that have not sent a profile yet."""
        return [client.name for client in self.clients.values() if client.profile is None]

    def owing(self) -> list[str]:
        """The silos that have not answered their request yet."""
        return [client.name for client in self.clients.values() if client.request is not None]

    def away(self, names: Sequence[str]) -> list[str]:
        """Those of these silos that are not connected."""
        return [name for name in names if self.clients[name].node is None]

    def nodes(self) -> set[int]:
        """The nodes at which silos are connected."""
        return {client.node for client in self.clients.values() if client.node is not None}

    def lost_with(self, nodes: Collection[int]) -> list[RemoteClient]:
        """Disconnect the silos whose node is not among these, and return them."""
        lost = [
            client
            for client in self.clients.values()
            if client.node is not None and client.node not in nodes
        ]
        for client in lost:
            client.node = None
        return lost
