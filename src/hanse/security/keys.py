"""Private keys, which never leave their machine, and the public halves that are sent to others.

A silo has two keys. Flower identifies its nodes by ECDSA keys on P-384; messages are signed with
Ed25519. One text file, `silo-a.pub`, has both public halves in OpenSSH's format, each with a proof
that the writer of the file holds the private half.
"""

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hanse import atomic_files
from hanse.errors import UserError

FORMAT = "hanse-silo/1"
RESERVED = ("server", "ca", "tls", "members")  # names of other files in a kit
NAME = re.compile(r"\w[\w.-]*", re.ASCII)
LONGEST = 64  # characters of a name
LARGEST = 64 * 1024  # bytes of a file of public keys

_RULE = ECDSA(hashes.SHA384())
_PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH)
_PUBLIC = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


@dataclass(frozen=True)
class Public:
    """The public keys of one silo. node: in OpenSSH's format, as Flower registers it."""

    name: str
    node: str
    signing: Ed25519PublicKey
    text: str  # the whole file

    @property
    def fingerprints(self) -> tuple[str, str]:
        """The fingerprints of the node key and the signing key, as `ssh-keygen -l` shows them."""
        return fingerprint(self.node), fingerprint(line(self.signing))


def vetted(name: str) -> str:
    """The name of a silo, which its files have too; raises UserError if it is not allowed."""
    if not (NAME.fullmatch(name) and len(name) <= LONGEST) or name in RESERVED:
        raise UserError(
            f"{name!r:.80} is no name for a silo: it has letters, digits, '_', '.' and '-', does "
            f"not begin with '.' or '-', has at most {LONGEST} characters, and is none of "
            f"{', '.join(RESERVED)}."
        )
    return name


def line(key: Ed25519PublicKey | EllipticCurvePublicKey) -> str:
    """A public key in OpenSSH's format, without a comment."""
    return key.public_bytes(*_PUBLIC).decode()


def fingerprint(key: str) -> str:
    """The fingerprint SHA256:… of a key in OpenSSH's format, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def write_private(file: Path, key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> None:
    """Write a private key that only its owner can read, in OpenSSH's format."""
    data = key.private_bytes(*_PRIVATE, serialization.NoEncryption())
    atomic_files.write(file, data, private=True)


def read_signing(file: Path) -> Ed25519PrivateKey:
    """The private key that signs messages; raises UserError if others can read the file."""
    refuse_readable(file)
    key = _read(file, lambda data: serialization.load_ssh_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{file} holds no Ed25519 key; bring back the right file.")
    return key


def refuse_readable(file: Path) -> None:
    """Raise UserError for a private key that is missing, or that other users can read.

    A key that belongs to root may be readable by its group: secrets of containers are.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"the key {file} cannot be read: {error.strerror}.") from None
    mode, is_secret = stat.S_IMODE(status.st_mode), status.st_uid == 0 != os.geteuid()
    if mode & (0o037 if is_secret else 0o077):
        raise UserError(
            f"the private key {file} has mode {mode:04o}, so other users can reach it; "
            f"run `chmod 600 {file}`, and make new keys if one of them may have read it."
        )


def read_server(file: Path) -> Ed25519PublicKey:
    """The server's public key, from server.pub."""
    key = _read(file, serialization.load_ssh_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{file} holds no Ed25519 key; put the server's server.pub there.")
    return key


def written(name: str, node: EllipticCurvePrivateKey, signing: Ed25519PrivateKey) -> str:
    """The text of a silo's public file."""
    lines = [f"{line(node.public_key())} {name}", f"{line(signing.public_key())} {name}"]
    claim = "\n".join([f"{FORMAT} {name}", *lines])
    proofs = [node.sign(claim.encode(), _RULE), signing.sign(claim.encode())]
    return "\n".join([claim, *(f"proof {base64.b64encode(p).decode()}" for p in proofs), ""])


def parse(text: str, place: str) -> Public:
    """The keys in a silo's public file; raises UserError unless it is whole and its proofs hold.

    place: the origin of the text, for messages.
    """
    lines = text.split("\n")
    if len(lines) != 6 or lines[5] or not lines[0].startswith(f"{FORMAT} "):
        raise UserError(
            f"{place} is not the public file of a silo, as `hanse kit key` writes it; ask for it "
            "again."
        )
    name = vetted(lines[0].removeprefix(f"{FORMAT} "))
    claim = "\n".join(lines[:3]).encode()
    try:
        node, signing = (serialization.load_ssh_public_key(key.encode()) for key in lines[1:3])
        proofs = [_proof(line) for line in lines[3:5]]
        if (
            not isinstance(node, EllipticCurvePublicKey)
            or not isinstance(node.curve, SECP384R1)
            or not isinstance(signing, Ed25519PublicKey)
        ):
            raise ValueError("the keys are of another kind")
        node.verify(proofs[0], claim, _RULE)
        signing.verify(proofs[1], claim)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise UserError(
            f"{place} was changed on its way, or written by somebody who does not hold the keys "
            f"in it; ask {name} for it again."
        ) from None
    return Public(name, line(node), signing, text)


def read(file: Path) -> Public:
    """The keys in a silo's public file."""
    return parse(text_of(file, LARGEST), str(file))


def text_of(file: Path, largest: int) -> str:
    """At most `largest` bytes of a file from elsewhere, as text; empty if they are not ASCII."""
    try:
        with file.open("rb") as handle:
            return handle.read(largest).decode("ascii").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        return ""


def _proof(text: str) -> bytes:
    word, _, proof = text.partition(" ")
    if word != "proof":
        raise ValueError("a proof is missing")
    try:
        return base64.b64decode(proof, validate=True)
    except binascii.Error as error:
        raise ValueError("a proof is damaged") from error


def _read(file: Path, load: Callable[[bytes], object]) -> object:
    """A key, read by a function of the cryptography package; its errors become UserError."""
    try:
        return load(file.read_bytes())
    except OSError as error:
        raise UserError(f"the key {file} cannot be read: {error.strerror}.") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{file} holds no key that can be read: {error}.") from None
