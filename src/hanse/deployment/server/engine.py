"""What the federated loop asks of whatever carries its messages to other machines."""

from typing import Protocol

from hanse.deployment.sockets import Frame


class Engine(Protocol):
    """What carries bytes to nodes and back, and starts again by itself when it is killed."""

    def send(self, node: int, ticket: int, body: bytes) -> None:
        """Hand bytes over for a node; returns at once."""

    def event(self, seconds: float) -> Frame | None:
        """What has happened: "reply" or "failed" to a ticket, "nodes" there are, "anew"."""
