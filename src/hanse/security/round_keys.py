"""One client's keys of one round of secure sums: for masks, for shares, and for its own mask.

Source: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning",
CCS 2017, figure 4. A client makes two X25519 key pairs (RFC 7748) and a secret b of 32 bytes for
each round:

* The mask key agrees with each neighbour on the seed of their pairwise mask.
* The share key agrees with each neighbour on the key under which shares of secrets are encrypted.
* b is the secret of the client's own mask. Its commitment is public, so that whoever rebuilds b
  can check it.

Seeds and keys are derived with HKDF-SHA256 (RFC 5869), each use with its own domain. A context
names the run, the round and the clients, so that no seed and no key is used twice.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, fields
from typing import NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hanse.tensors.serialization import MessageError

LENGTH = 32  # bytes of a key, a seed, b and a commitment
TAG = 16  # bytes by which a box is longer than its text

_COMMITMENT = b"hanse commitment to b 1\0"
_MASK = b"hanse pairwise mask 1\0"
_OWN_MASK = b"hanse own mask 1\0"
_SHARES = b"hanse encrypted shares 1\0"

# AES-GCM must not encrypt two texts under one key and nonce. Each key encrypts one text, since the
# sender, the receiver and the context are in it and `RoundKeys.seal` refuses a second text.
_NONCE = bytes(12)


@dataclass(frozen=True)
class PublicKeys:
    """One client's public keys of a round and the commitment to its b, 32 bytes each.

    Raises MessageError for another length.
    """

    mask: bytes
    share: bytes
    commitment: bytes

    def __post_init__(self) -> None:
        for field in fields(self):
            if (length := len(getattr(self, field.name))) != LENGTH:
                raise MessageError(f"the {field.name} of a client has {length} bytes, not {LENGTH}")

    def to_bytes(self) -> bytes:
        """The 96 bytes of the keys and the commitment, in the order of the fields."""
        return self.mask + self.share + self.commitment

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The public keys in 96 bytes; raises MessageError for another length."""
        if len(data) != 3 * LENGTH:
            raise MessageError(f"a client's public keys have {3 * LENGTH} bytes, not {len(data)}")
        return cls(data[:LENGTH], data[LENGTH : 2 * LENGTH], data[2 * LENGTH :])


class RoundKeys:
    """The secrets of one client in one round, from the operating system's randomness.

    They cannot be pickled or copied, so that they reach no file and no message.
    """

    __slots__ = ("_b", "_mask", "_sealed", "_share", "public")

    def __init__(self) -> None:
        self._b = secrets.token_bytes(LENGTH)
        self._mask = X25519PrivateKey.generate()
        self._share = X25519PrivateKey.generate()
        self._sealed: set[bytes] = set()  # what keys were derived from that have encrypted a text
        self.public = PublicKeys(_public(self._mask), _public(self._share), _commitment(self._b))

    def __reduce__(self) -> NoReturn:
        raise TypeError("the keys of a round are not pickled or copied: they are secret")

    def __repr__(self) -> str:
        return f"RoundKeys({self.public})"

    @property
    def b(self) -> bytes:
        """The secret of the client's own mask, 32 bytes."""
        return self._b

    @property
    def private_mask_key(self) -> bytes:
        """The private half of the mask key, 32 bytes."""
        return self._mask.private_bytes_raw()

    def mask_seed(self, peer: PublicKeys, context: bytes) -> bytes:
        """The 32-byte seed of the mask between this client and a peer.

        context: the run, the round and both clients, in the same order at both, who get the same
        seed. Raises MessageError if the peer's key agrees on no secret.
        """
        return _seed_between(self._mask, peer.mask, context)

    def seal(self, text: bytes, peer: PublicKeys, context: bytes) -> bytes:
        """A text encrypted for a peer, 16 bytes longer.

        Raises ValueError for a second text to one peer in one context, which would reveal both, and
        MessageError if the peer's key agrees on no secret.
        """
        info = _SHARES + self.public.share + peer.share + context
        if info in self._sealed:
            raise ValueError(
                "one key would encrypt two texts; keep the first box and send it again"
            )
        key = _derive(_agree(self._share, peer.share), info)
        self._sealed.add(info)
        return AESGCM(key).encrypt(_NONCE, text, None)

    def open(self, box: bytes, peer: PublicKeys, context: bytes) -> bytes:
        """The text that a peer has sealed for this client in this context.

        Raises MessageError for a box that is damaged or was made with another key or context.
        """
        info = _SHARES + peer.share + self.public.share + context
        key = _derive(_agree(self._share, peer.share), info)
        try:
            return AESGCM(key).decrypt(_NONCE, box, None)
        except InvalidTag:
            raise MessageError(
                "an encrypted text was damaged, or is from another client, round or run"
            ) from None


def is_usable(keys: PublicKeys) -> bool:
    """True if a secret can rest on both keys: neither is a point of low order."""
    try:
        for key in (keys.mask, keys.share):
            _agree(X25519PrivateKey.generate(), key)
    except MessageError:
        return False
    return True


def is_commitment(commitment: bytes, b: bytes) -> bool:
    """True if a client that published this commitment has this b."""
    return hmac.compare_digest(commitment, _commitment(b))


def public_mask_key(private: bytes) -> bytes:
    """The public half of a private mask key, both 32 bytes; raises ValueError if it has others."""
    return _public(X25519PrivateKey.from_private_bytes(private))


def seed_between(private: bytes, peer_mask: bytes, context: bytes) -> bytes:
    """The seed that `RoundKeys.mask_seed` gives, for the server that has rebuilt a private key.

    private: the dropped client's mask key, 32 bytes. peer_mask: the public mask key of its peer.
    Raises MessageError if the peer's key agrees on no secret.
    """
    return _seed_between(X25519PrivateKey.from_private_bytes(private), peer_mask, context)


def b_seed(b: bytes, context: bytes) -> bytes:
    """The 32-byte seed of a client's own mask. context: the run, the round and the client."""
    return _derive(b, _OWN_MASK + context)


def _seed_between(private: X25519PrivateKey, peer_mask: bytes, context: bytes) -> bytes:
    return _derive(_agree(private, peer_mask), _MASK + context)


def _agree(private: X25519PrivateKey, peer: bytes) -> bytes:
    """The X25519 secret; raises MessageError for a point of low order, and for one's own key.

    Low order makes the secret 0, which everybody knows (RFC 7748, section 6.1). With one's own key,
    one's own boxes could come back as the peer's.
    """
    if peer == _public(private):
        raise MessageError("a client has published the key of another client as its own")
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise MessageError("a client has published a key on which no secret can rest") from None


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), LENGTH, None, info).derive(secret)


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def _commitment(b: bytes) -> bytes:
    return hashlib.sha256(_COMMITMENT + b).digest()
