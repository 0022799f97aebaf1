"""The role of a transport: carries messages to the clients and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hanse.federation.messages import ClientProfile


class Transport(ABC):
    """The clients, wherever they run; messages pass as bytes.

    max_in_flight: how many requests it holds before there must be a reply; None for any number.
    remote: whether messages travel, so that waiting for a reply takes time of its own.
    """

    max_in_flight: int | None = None
    remote: ClassVar[bool] = True

    @abstractmethod
    def profiles(self) -> list[ClientProfile]:
        """The clients there are, in client order."""

    @abstractmethod
    def send(self, client: str, message: bytes) -> None:
        """Hand over a request; returns at once."""

    @abstractmethod
    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        """Who replied next, and the reply; None if none came in `timeout` seconds, or can come."""

    def wait_for(self, clients: Sequence[str], enough: int) -> bool:
        """Wait until enough of these clients can be asked again, of which too few have answered.

        False where nothing would change by waiting.
        """
        return False
