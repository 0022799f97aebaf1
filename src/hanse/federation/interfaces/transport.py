"""The role of a transport: it carries messages to the clients and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hanse.federation.messages import ClientProfile


class Transport(ABC):
    """The clients, wherever they run; messages pass as bytes.

    max_in_flight: the number of requests that it holds without a reply; None: any number.
    remote: whether clients are on other machines, so that a reply may be late or missing.
    """

    max_in_flight: int | None = None
    remote: ClassVar[bool] = True

    @abstractmethod
    def profiles(self) -> list[ClientProfile]:
        """The profiles of all clients, in client order."""

    @abstractmethod
    def send(self, client: str, message: bytes) -> None:
        """Send a request; return at once."""

    @abstractmethod
    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        """The next reply and its client; None after `timeout` seconds, or if no reply can come."""

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        """Wait until the required number of these clients can be asked; False if it is no use."""
        return False
