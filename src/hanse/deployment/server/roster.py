"""What a server knows of each silo: where it is, when it was heard of, what it is doing."""

import math
from dataclasses import dataclass

from hanse.federation.messages import AGREED, ClientProfile

DOING = {"train": "training", AGREED: "training", "evaluate": "evaluating"}  # by what is asked


@dataclass
class RemoteClient:
    """One silo, as far as it is known.

    node: where it is, while it is there. session: its process; another one has forgotten what it
        was asked. seen: when it last said anything. asked: when it was last asked.
    request: what it has not answered yet. kind: what that asks for. since: when it was sent first.
    """

    name: str
    node: int | None = None
    session: str = ""
    seen: float | None = None
    asked: float = 0.0
    again: float = math.inf  # when the request counts as lost, and is sent again
    profile: ClientProfile | None = None
    request: bytes | None = None
    kind: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Sent:
    """What was sent to a node: for whom, its number, and the request in it.

    Without a name, it asks who is there; without a request, for a silo's profile.
    at: when.
    """

    node: int
    name: str = ""
    number: int = 0
    request: bytes = b""
    at: float = 0.0


def doing(seat: RemoteClient, now: float) -> str:
    """What a silo is doing, as far as the server can tell, and for how long."""
    if seat.node is None:
        return "never seen" if seat.seen is None else f"gone, last seen {now - seat.seen:.0f} s ago"
    if seat.request is None:
        return "there"
    return f"{DOING.get(seat.kind, f'at {seat.kind}')} for {now - seat.since:.0f} s"


def longer(first: float, times: int, most: float) -> float:
    """Seconds to wait after so many waits: each is twice the last one, up to the most."""
    return min(most, first * 2.0 ** min(times, 10))  # it may go on for days
