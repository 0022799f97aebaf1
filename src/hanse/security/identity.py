"""Identities: a client's signing key, and the public keys of the federation's other clients.

A deployed client's identity is in its silo's kit. The clients of a simulation get keys that are
made for the run.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOMAIN = "hanse key of a simulated client, which protects nothing"


@dataclass(frozen=True)
class Identity:
    """One client's name and signing key, and the other clients' public keys by name.

    It cannot be pickled or copied, so that a private key reaches no file and no message.
    """

    name: str
    key: Ed25519PrivateKey = field(repr=False)
    peers: Mapping[str, Ed25519PublicKey] = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        """The client's signature of a text: 64 bytes (Ed25519, RFC 8032)."""
        return self.key.sign(text)

    def is_signed_by(self, name: str, signature: bytes, text: bytes) -> bool:
        """True if another client, whose key is known here, has signed a text."""
        if name not in self.peers:
            return False
        try:
            self.peers[name].verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity is not pickled or copied: it holds a private key")


def simulated(seed: int, name: str, clients: Collection[str]) -> Identity:
    """The identity of one client of a simulation, the same after the run is resumed.

    Its keys protect nothing: whoever knows the run's seed can derive every one of them. They are
    never written into a kit, and no deployed server or silo uses them.
    """
    return Identity(name, _key(seed, name), _SimulatedPeers(seed, name, clients))


@dataclass(frozen=True)
class _SimulatedPeers(Mapping[str, Ed25519PublicKey]):
    """The other clients' public keys. A key is derived when it is asked for."""

    seed: int
    name: str
    clients: Collection[str]

    def __getitem__(self, name: str) -> Ed25519PublicKey:
        if name not in self:
            raise KeyError(name)
        return _public_key(self.seed, name)

    def __contains__(self, name: object) -> bool:
        return name != self.name and name in self.clients

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.clients if name != self.name)

    def __len__(self) -> int:
        return len(self.clients) - (self.name in self.clients)


def _key(seed: int, name: str) -> Ed25519PrivateKey:
    digest = hashlib.sha256(f"{DOMAIN}/{seed}/{name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(digest)


@lru_cache(maxsize=4096)
def _public_key(seed: int, name: str) -> Ed25519PublicKey:
    return _key(seed, name).public_key()
