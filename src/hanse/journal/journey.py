"""The record of a request's way over a simulated link, and the bounds of measured quantities."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Amount = Annotated[float, Field(ge=0, le=1e30)]  # a measured quantity; a score may be any number
Size = Annotated[int, Field(ge=0, le=10**18)]  # bytes


@dataclass(frozen=True)
class Journey:
    """Simulated seconds of a request over a client's link, of the work on it, and of the reply.

    down, up: seconds of the request and of the reply on their way. training: seconds between them.
    resent_down, resent_up: bytes that were lost on the way, and sent again.
    joules, mfu: of the training on a simulated device, and the share of its peak that training
    reaches; None: not known.
    """

    down: Amount = 0.0
    training: Amount = 0.0
    up: Amount = 0.0
    resent_down: Size = 0
    resent_up: Size = 0
    joules: Amount | None = None
    mfu: Amount | None = None

    @property
    def seconds(self) -> float:
        """The seconds from the sending of the request to the arrival of the reply."""
        return self.down + self.training + self.up

    def __add__(self, other: "Journey") -> "Journey":
        known = [own for own in (self.joules, other.joules) if own is not None]
        return Journey(
            self.down + other.down,
            self.training + other.training,
            self.up + other.up,
            self.resent_down + other.resent_down,
            self.resent_up + other.resent_up,
            sum(known) if known else None,
            self.mfu if other.mfu is None else other.mfu,
        )
