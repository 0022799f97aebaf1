"""Signed messages: who said what to whom, in which run and round, and whether it is said anew.

The transport may be anything; what is not signed as below is refused. A signed message is

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
from hanse.tensors.serialization import MessageError

MAGIC = b"HSG1"
DOMAIN = b"hanse signed message 1\0"  # so that a signature means nothing elsewhere
SIGNATURE = 64  # bytes
MAX_HEAD = 4096  # bytes; a longer one is refused before it is parsed
SKEW = 300.0  # seconds that a message's clock and ours may differ
KEPT = 86_400.0  # seconds after its last message in which a run is remembered: far more than SKEW
MOST_RUNS = 1_000  # runs that are remembered; their names are the sender's to choose

Direction = Literal["request", "reply", "statement"]


class Untrusted(MessageError):  # noqa: N818 (said of a message)
    """A message that is not what it should be, from whom it should be, for whom, or when."""


@dataclass(frozen=True)
class Stamp:
    """What is signed along with a message's body.

    run: which run. sequence: of a request, higher than all before in this run; of a reply, that of
    the request. time: of signing, seconds since 1970.
    """

    run: str
    round: int
    sequence: int
    sender: str
    audience: str
    direction: Direction
    time: float


def sign(body: bytes, stamp: Stamp, key: Ed25519PrivateKey) -> bytes:
    """A body with its stamp, signed."""
    fields = {**asdict(stamp), "sha256": hashlib.sha256(body).hexdigest()}
    head = json.dumps(fields, separators=(",", ":")).encode()
    if len(head) > MAX_HEAD:
        raise ValueError(f"the head of a message has {len(head)} bytes, more than {MAX_HEAD}")
    signature = key.sign(DOMAIN + head)
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, signature, body])


def verify(message: bytes, known: Mapping[str, Ed25519PublicKey]) -> tuple[Stamp, bytes]:
    """The stamp and the body of a message that one of the known has signed.

    Raises Untrusted for anything else. Whether it is for us, and new, `Inbox` finds out.
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
    """The body of a signed message, whoever signed it; raises Untrusted for what is none."""
    size = int.from_bytes(message[4:8], "little")
    start = 8 + size + SIGNATURE
    if message[:4] != MAGIC or size > MAX_HEAD or len(message) < start:
        raise Untrusted("the message is not signed")
    return message[start:]


_TYPES = {"run": str, "round": int, "sequence": int, "sender": str, "audience": str}
_TYPES |= {"direction": str, "time": float, "sha256": str}


def _parse(head: bytes) -> tuple[Stamp, str]:
    try:
        values: Any = json.loads(head)
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
    """Signs what one party sends.

    Sequences are the clock's nanoseconds, or one more than the last: they go on rising after a
    restart, although nothing is kept.
    """

    sender: str
    key: Ed25519PrivateKey
    clock: Callable[[], float] = time.time
    _last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def request(self, body: bytes, run: str, round: int, audience: str) -> tuple[bytes, Stamp]:
        """A signed request, and its stamp, by which the reply is known."""
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


class Heard(NamedTuple):
    """What was taken in one run: the highest sequence of each sender, and the last time."""

    sequences: dict[str, int]
    time: float


@dataclass
class Inbox:
    """Opens what one party receives, and each message once.

    owner: whose it is. direction: what it receives.
    known: the public keys of those who may write.
    file: where the highest sequences seen are kept, so that a restart does not forget them.
    skew: seconds that a sender's clock may differ from ours.
    """

    owner: str
    direction: Direction
    known: Mapping[str, Ed25519PublicKey]
    file: Path
    skew: float = SKEW
    clock: Callable[[], float] = time.time
    _seen: dict[str, Heard] = field(init=False)  # by run
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._seen = _kept(self.file)

    def open(self, message: bytes, run: str | None = None) -> tuple[Stamp, bytes]:
        """The stamp and body of a message to us; raises Untrusted with the reason.

        run: the only run whose messages are taken; None: any, each with sequences of its own.
        That a message was seen is durable before it is handed on.
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
        late = self.clock() - stamp.time
        if abs(late) > self.skew:
            raise Untrusted(
                f"the message of {stamp.sender} was signed {abs(late):,.0f} s "
                f"{'ago' if late > 0 else 'in the future'} by its clock, more than "
                f"{self.skew:g} s; it is an old one, or one of the clocks is wrong"
            )
        self._count(stamp)
        return stamp, body

    def _count(self, stamp: Stamp) -> None:
        """Note a message as seen; raises Untrusted if it was, or a later one."""
        now = self.clock()
        with self._lock:
            former = self._seen.get(stamp.run, Heard({}, now))
            if stamp.sequence <= former.sequences.get(stamp.sender, -1):
                raise Untrusted(
                    f"the message of {stamp.sender} came before, or after a later one; it is not "
                    "taken again"
                )
            # What came in a run that is forgotten is too old by now to be taken.
            kept = {run: heard for run, heard in self._seen.items() if now - heard.time < KEPT}
            if stamp.run not in kept and len(kept) >= MOST_RUNS:
                raise Untrusted(
                    f"the message of {stamp.sender} is of one run more than the {MOST_RUNS:,} of "
                    "the last 24 hours"
                )
            sequences = {**former.sequences, stamp.sender: stamp.sequence}
            self._seen = {**kept, stamp.run: Heard(sequences, max(now, stamp.time, former.time))}
            atomic_files.write(self.file, json.dumps(self._seen).encode(), private=True)


def _kept(file: Path) -> dict[str, Heard]:
    """The sequences in a file; a damaged one is refused, since forgetting would let replays in."""
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        found = json.loads(data)
        return {
            str(run): Heard({str(name): int(last) for name, last in senders.items()}, float(when))
            for run, (senders, when) in found.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{file} cannot be read, which says what messages came before; bring it back from a "
            f"copy, or remove it after {SKEW:.0f} seconds without messages."
        ) from None
