"""The role of a transport: it carries messages to the clients and back."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hanse.federation.messages import ClientProfile
from hanse.journal.ledger import Ledger
from hanse.tensors.serialization import Content


class Transport(ABC):
    """The clients, wherever they run; messages pass as bytes, in memory or on disk.

    max_in_flight: the number of requests that it holds without a reply; None: any number.
    remote: whether clients are on other machines.
    timed: whether messages take time, so that a reply may be late or missing.
    """

    max_in_flight: int | None = None
    remote: ClassVar[bool] = True
    timed: ClassVar[bool] = True

    @abstractmethod
    def profiles(self) -> list[ClientProfile]:
        """The profiles of all clients, in client order."""

    @abstractmethod
    def send(self, client: str, message: Content) -> None:
        """Send a request; return at once."""

    @abstractmethod
    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        """The next reply and its client; None after `timeout` seconds, or if no reply can come."""

    def clock(self) -> float:
        """The time in seconds by which deadlines are kept; a simulation may have its own."""
        return time.monotonic()

    def begin(self, kind: str, round: int, ledger: Ledger) -> None:  # noqa: B027 (nothing to note)
        """Note that requests of one kind follow; between them may be all those of another kind.

        ledger: gets the simulated seconds of each request, if this transport simulates time.
        """

    def end(self) -> Sequence[tuple[str, int]]:
        """Note that no further replies to the requests since the last `begin` are received.

        Returns the clients whose replies a simulation knows to come later, and the replies' bytes.
        A remote transport knows of none; it returns late replies from a later `receive`.
        """
        return ()

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        """Wait until the required number of these clients can be asked; False if it is no use."""
        return False
