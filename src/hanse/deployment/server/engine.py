"""The interface of an engine, which carries messages to other machines."""

from typing import Protocol

from hanse.deployment.sockets import Frame


class Engine(Protocol):
    """Carries bytes to nodes and back; it restarts its processes if they are killed."""

    def send(self, node: int, ticket: int, body: bytes) -> None:
        """Queue bytes for a node under a ticket, which its reply repeats; returns at once."""

    def event(self, seconds: float) -> Frame | None:
        """The next event, or None after these seconds.

        It is a "reply" to a ticket, a "failed" ticket, the "nodes" that are connected, or "anew"
        after the engine was restarted.
        """
