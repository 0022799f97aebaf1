"""Texts that the clients of a secure sum sign, so that the server can change none of them.

An advertisement binds a client's fresh keys to the job, the request that it was sent, and the
parameters of the sum. A neighbour verifies it with its own values of these: clients that were sent
different models, jobs or parameters find each other's signatures wrong. A second text binds the
list of clients whose masked summands arrived.
"""

import hashlib
import json
from dataclasses import astuple, dataclass

from hanse.federation.secure_sums.grid import Grid
from hanse.federation.secure_sums.plan import Plan
from hanse.security.identity import Identity
from hanse.security.round_keys import PublicKeys
from hanse.tensors.serialization import MessageError

ADVERTISEMENT = b"hanse secure sum: keys\0"
SURVIVORS = b"hanse secure sum: survivors\0"
INDEX, KEYS, SIGNATURE = 4, 96, 64  # bytes of the parts of an advertisement


@dataclass(frozen=True)
class Terms:
    """The values that all clients of one sum must have in common.

    job: the digest of what a client takes the job for. request: the digest of its train request.
    """

    job: str
    round: int
    request: bytes
    plan: Plan
    grid: Grid

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of them."""
        plan = astuple(self.plan)
        content = [self.job, self.round, self.request.hex(), plan, self.grid.numbers]
        return hashlib.sha256(json.dumps(content).encode()).digest()


@dataclass(frozen=True)
class Advertisement:
    """A client's public keys of one round, and its index among the round's clients, from 1."""

    index: int
    keys: PublicKeys
    signature: bytes

    def to_bytes(self) -> bytes:
        """The advertisement as it travels: 164 bytes."""
        return self.index.to_bytes(INDEX, "little") + self.keys.to_bytes() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> "Advertisement":
        """The inverse of `to_bytes`; raises MessageError for anything else."""
        if len(data) != INDEX + KEYS + SIGNATURE:
            raise MessageError(f"an advertisement of keys has {len(data)} bytes")
        index = int.from_bytes(data[:INDEX], "little")
        keys = PublicKeys.from_bytes(data[INDEX : INDEX + KEYS])
        return cls(index, keys, data[INDEX + KEYS :])


def advertise(identity: Identity, terms: Terms, index: int, keys: PublicKeys) -> Advertisement:
    """A client's signed advertisement."""
    text = _advertised(identity.name, terms, index, keys)
    return Advertisement(index, keys, identity.sign(text))


def is_advertised(identity: Identity, name: str, terms: Terms, sent: Advertisement) -> bool:
    """True if a neighbour signed these keys, for the same terms."""
    text = _advertised(name, terms, sent.index, sent.keys)
    return identity.is_signed_by(name, sent.signature, text)


def sign_survivors(identity: Identity, terms: Terms, keys: PublicKeys, survivors: bytes) -> bytes:
    """A client's signature on the list of survivors; keys: its own, so that no try is repeated."""
    return identity.sign(_survived(identity.name, terms, keys, survivors))


def is_same_list(
    identity: Identity,
    name: str,
    terms: Terms,
    keys: PublicKeys,
    survivors: bytes,
    signature: bytes,
) -> bool:
    """True if a neighbour, whose keys these are, signed the same list of survivors."""
    return identity.is_signed_by(name, signature, _survived(name, terms, keys, survivors))


def _advertised(name: str, terms: Terms, index: int, keys: PublicKeys) -> bytes:
    return b"".join(
        [ADVERTISEMENT, terms.digest, index.to_bytes(INDEX, "little"), keys.to_bytes(), _of(name)]
    )


def _survived(name: str, terms: Terms, keys: PublicKeys, survivors: bytes) -> bytes:
    return b"".join([SURVIVORS, terms.digest, keys.to_bytes(), _of(name), survivors])


def _of(name: str) -> bytes:
    """A name of fixed length, so that no two texts are the same bytes."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()
