"""Signed messages: sender, audience, run and round are proven, and each is accepted only once.

They protect any transport: a message without a valid signature is refused. A signed message is

    "HSG1" · length of the head (4 bytes, little endian) · head · signature (64 bytes) · body

where the head is JSON with exactly the fields of `Stamp` and the SHA-256 of the body, and the
signature is Ed25519 (RFC 8032) over a constant and the head. Nothing in it names a class.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors import json_text
from hanse.tensors.serialization import MessageError

MAGIC = b"HSG1"
DOMAIN = b"hanse signed message 1\0"  # makes a signature invalid for any other purpose
SIGNATURE = 64  # bytes
MAX_HEAD = 4096  # bytes; a longer one is refused before it is parsed
SKEW = 300.0  # seconds that the clocks of sender and receiver may differ
KEPT = 86_400.0  # seconds that a run is remembered after its last message: far more than SKEW
MOST_RUNS = 1_000  # runs that are remembered, since a sender may invent any number of them

Direction = Literal["request", "reply", "statement"]


class Untrusted(MessageError):  # noqa: N818 (an adjective of a message)
    """A message with a wrong signature, sender, audience, direction, run or time."""


@dataclass(frozen=True)
class Stamp:
    """The fields that are signed together with the hash of a message's body.

    sequence: higher than in all earlier requests of the run; a reply repeats its request's.
    time: of signing, in seconds since 1970.
    """

    run: str
    round: int
    sequence: int
    sender: str
    audience: str
    direction: Direction
    time: float


def sign(body: bytes, stamp: Stamp, key: Ed25519PrivateKey) -> bytes:
    """The signed message with this body and stamp."""
    fields = {**asdict(stamp), "sha256": hashlib.sha256(body).hexdigest()}
    head = json.dumps(fields, separators=(",", ":")).encode()
    if len(head) > MAX_HEAD:
        raise ValueError(f"the head of a message has {len(head)} bytes, more than {MAX_HEAD}")
    signature = key.sign(DOMAIN + head)
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, signature, body])


def verify(message: bytes, known: Mapping[str, Ed25519PublicKey]) -> tuple[Stamp, bytes]:
    """The stamp and the body of a message that one of the known senders has signed.

    Raises Untrusted for any other message. `Inbox` checks the audience, and that it is new.
    """
    body = unverified(message)
    size = int.from_bytes(message[4:8], "little")
    start = 8 + size + SIGNATURE
    head = message[8 : 8 + size]
    stamp, digest = _parse(head)
    key = known.get(stamp.sender)
    if key is None:
        raise Untrusted(f"the message is in the name of {stamp.sender!r:.80}, which is not known")
    try:
        key.verify(message[8 + size : start], DOMAIN + head)
    except InvalidSignature:
        raise Untrusted(
            f"the message is not signed by {stamp.sender}, in whose name it is"
        ) from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise Untrusted(f"the message was changed after {stamp.sender} had signed it")
    return stamp, body


def unverified(message: bytes) -> bytes:
    """The body of a message whose signature is not checked; raises Untrusted if it has none."""
    size = int.from_bytes(message[4:8], "little")
    start = 8 + size + SIGNATURE
    if message[:4] != MAGIC or size > MAX_HEAD or len(message) < start:
        raise Untrusted("the message is not signed")
    return message[start:]


_TYPES = {"run": str, "round": int, "sequence": int, "sender": str, "audience": str}
_TYPES |= {"direction": str, "time": float, "sha256": str}


def _parse(head: bytes) -> tuple[Stamp, str]:
    try:
        values: Any = json_text.parse(head)
    except (ValueError, RecursionError):
        values = None
    if (
        not isinstance(values, dict)
        or values.keys() != _TYPES.keys()
        or any(type(values[key]) is not kind for key, kind in _TYPES.items())
        or values["direction"] not in get_args(Direction)
        or not all(0 <= values[key] < 2**63 for key in ("round", "sequence", "time"))
    ):
        raise Untrusted("the message has no readable head")
    digest = values.pop("sha256")
    return Stamp(**values), digest


@dataclass
class Outbox:
    """Signs the messages of one sender.

    A sequence is the clock's nanoseconds, or one more than the last: it rises after a restart too,
    although nothing is stored.
    """

    sender: str
    key: Ed25519PrivateKey
    clock: Callable[[], float] = time.time
    _last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def request(self, body: bytes, run: str, round: int, audience: str) -> tuple[bytes, Stamp]:
        """A signed request and its stamp; the reply has the same sequence."""
        now = self.clock()
        with self._lock:
            self._last = max(self._last + 1, int(now * 1e9))
            stamp = Stamp(run, round, self._last, self.sender, audience, "request", float(now))
        return sign(body, stamp, self.key), stamp

    def reply(self, body: bytes, request: Stamp) -> bytes:
        """A signed reply to a request."""
        now = float(self.clock())
        stamp = Stamp(
            *(request.run, request.round, request.sequence, self.sender, request.sender),
            *("reply", now),
        )
        return sign(body, stamp, self.key)


class Accepted(NamedTuple):
    """The accepted messages of one run: the highest sequence of each sender, and the last time."""

    sequences: dict[str, int]
    time: float


@dataclass
class Inbox:
    """Opens the messages to one receiver, each only once.

    owner: the receiver's name. direction: the only direction that is accepted.
    known: the public keys of the senders, by name.
    file: keeps the highest sequences, so that a restart does not forget them.
    skew: seconds that a sender's clock may differ from the receiver's.
    """

    owner: str
    direction: Direction
    known: Mapping[str, Ed25519PublicKey]
    file: Path
    skew: float = SKEW
    clock: Callable[[], float] = time.time
    _seen: dict[str, Accepted] = field(init=False)  # by run
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._seen = _stored(self.file)

    def open(self, message: bytes, run: str | None = None) -> tuple[Stamp, bytes]:
        """The stamp and body of a message to the owner; raises Untrusted with the reason.

        run: the only run whose messages are accepted; None: any run, each with its own sequences.
        The message's sequence is on disk before this returns.
        """
        stamp, body = verify(message, self.known)
        if stamp.direction != self.direction:
            raise Untrusted(f"a {stamp.direction} of {stamp.sender} came where none is expected")
        if stamp.audience != self.owner:
            raise Untrusted(f"the message of {stamp.sender} is for {stamp.audience!r:.80}, not us")
        if run is not None and stamp.run != run:
            raise Untrusted(
                f"the message of {stamp.sender} belongs to the run {stamp.run!r:.80}, not {run}"
            )
        age = self.clock() - stamp.time
        if abs(age) > self.skew:
            raise Untrusted(
                f"the message of {stamp.sender} was signed {abs(age):,.0f} s "
                f"{'ago' if age > 0 else 'in the future'} by its clock, more than "
                f"{self.skew:g} s; it is an old one, or one of the clocks is wrong"
            )
        self._count(stamp)
        return stamp, body

    def _count(self, stamp: Stamp) -> None:
        """Store a message's sequence; raises Untrusted if this or a later one was stored before."""
        now = self.clock()
        with self._lock:
            former = self._seen.get(stamp.run, Accepted({}, now))
            if stamp.sequence <= former.sequences.get(stamp.sender, -1):
                raise Untrusted(
                    f"the message of {stamp.sender} came before, or after a later one; it is not "
                    "taken again"
                )
            # Messages of a forgotten run are refused by their time.
            recent = {run: seen for run, seen in self._seen.items() if now - seen.time < KEPT}
            if stamp.run not in recent and len(recent) >= MOST_RUNS:
                raise Untrusted(
                    f"the message of {stamp.sender} is of one run more than the {MOST_RUNS:,} of "
                    "the last 24 hours"
                )
            sequences = {**former.sequences, stamp.sender: stamp.sequence}
            last = max(now, stamp.time, former.time)
            self._seen = {**recent, stamp.run: Accepted(sequences, last)}
            atomic_files.write(self.file, json.dumps(self._seen).encode(), private=True)


def _stored(file: Path) -> dict[str, Accepted]:
    """The sequences in a file; raises UserError for a damaged one, since replays would pass."""
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        runs = json_text.parse(data)
        return {
            str(run): Accepted(
                {str(name): int(last) for name, last in senders.items()}, float(time)
            )
            for run, (senders, time) in runs.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{file} cannot be read; it lists the messages that came before. Bring it back from a "
            f"copy, or remove it after {SKEW:.0f} seconds without messages."
        ) from None
