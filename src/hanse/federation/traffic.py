"""How far the requests of a round are."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from hanse.federation.messages import Request
from hanse.observability.progress import report
from hanse.observability.steps import ClientReplies
from hanse.tensors.named import Layout


@dataclass
class Traffic:
    """The requests of one kind to a round's clients: those sent, unsent and answered.

    request: makes a client's request, when it is sent.
    expected: what a client's answer must look like.
    unsent: the clients that wait for theirs until those under way leave room.
    down, up: bytes.
    """

    kind: str
    request: Callable[[str], Request]
    expected: Callable[[str], Layout]
    unsent: deque[str]
    total: int
    under_way: int = 0
    done: int = 0
    down: int = 0
    up: int = 0

    def tell(self) -> None:
        """Say it to whoever watches."""
        report(ClientReplies(self.kind, self.done, self.total, self.down, self.up))
