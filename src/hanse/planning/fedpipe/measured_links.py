"""Silos' links to the server, as the rounds of a deployed probe have timed them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hanse.federation.speed.link_rounds import LinkRound, link_round
from hanse.journal.records import ClientRecord


@dataclass(frozen=True)
class MeasuredLink:
    """A silo's way to the server and back, with the engine's own waits.

    latency: seconds of an empty request and its reply. up, down: bytes a second above it; None: the
    large messages took no longer than the empty ones.
    """

    latency: float
    up: float | None
    down: float | None

    def __str__(self) -> str:
        ways = f"{_rate(self.down)} down, {_rate(self.up)} up"
        return f"{ways}, {self.latency:.2g} s for an empty message and back"


def measured(records: Iterable[ClientRecord]) -> dict[str, MeasuredLink]:
    """The links of the silos that have answered messages of all three kinds, by their names.

    The fastest message of a kind counts: others have waited for something else, too.
    """
    fastest: dict[str, dict[LinkRound, ClientRecord]] = {}
    for record in records:
        kind, seconds = link_round(record.round), _seconds(record)
        if kind is None or seconds is None:
            continue
        own = fastest.setdefault(record.client, {})
        before = _seconds(own[kind]) if kind in own else None
        if before is None or seconds < before:
            own[kind] = record
    return {name: _link(own) for name, own in fastest.items() if len(own) == len(LinkRound)}


def _link(messages: Mapping[LinkRound, ClientRecord]) -> MeasuredLink:
    both, down, neither = (messages[kind] for kind in LinkRound)
    latency = _seconds(neither)
    assert latency is not None  # as of all that are kept
    up = _beyond(both, down, both.up - down.up)
    return MeasuredLink(latency, up, _beyond(down, neither, down.down - neither.down))


def _beyond(longer: ClientRecord, shorter: ClientRecord, size: int) -> float | None:
    """Bytes a second of what one exchange has more of than another; None if it took no longer."""
    more = (_seconds(longer) or 0.0) - (_seconds(shorter) or 0.0)
    return size / more if more > 0 and size > 0 else None


def _seconds(record: ClientRecord) -> float | None:
    """Seconds from the request's sending to the reply; None for any but an answered training."""
    sent, answered = record.sent_at, record.answered_at
    if record.kind != "train" or record.error or sent is None or answered is None:
        return None
    return max(0.0, answered - sent)


def _rate(value: float | None) -> str:
    return "no limit seen" if value is None else f"{8 * value / 1e6:.3g} Mbit/s"
