"""Records that anybody can check: JSON, signed by the key of a kit, with the public key beside it.

A file has the record, the signer's public key in OpenSSH's format, and the signature: Ed25519
(RFC 8032) over a constant and the record as JSON with sorted keys and without spaces.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hanse.errors import UserError
from hanse.security import keys
from hanse.tensors import json_text

DOMAIN = b"hanse signed record 1\0"  # makes a signature invalid for any other purpose
LARGEST = 1024 * 1024  # bytes of a file
SERVER = "server"  # the name whose key is the server's


def signing_key(kit: Path, name: str) -> Ed25519PrivateKey:
    """The signing key of a silo, or of the server, in its kit."""
    if name != SERVER:
        keys.vetted(name)
    file = kit / f"{name}.key"
    if not file.exists():
        raise UserError(
            f"{kit} has no {name}.key; name the kit with --kit and the silo with --name (or "
            f"--name {SERVER}), or make keys with `hanse kit key {name}`."
        )
    return keys.read_signing(file)


def signed(record: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The file of a record."""
    signature = base64.b64encode(key.sign(DOMAIN + _text(record))).decode()
    public = keys.line(key.public_key())
    content = {"record": dict(record), "key": public, "signature": signature}
    return json.dumps(content, indent=2).encode() + b"\n"


def public_key(file: Path) -> tuple[str, Ed25519PublicKey]:
    """The name and the public key in a silo's public file, or in the server's server.pub."""
    if keys.text_of(file, keys.LARGEST).startswith(keys.FORMAT.partition("/")[0]):
        public = keys.read(file)
        return public.name, public.signing
    return SERVER, keys.read_server(file)


def opened(file: Path, known: Ed25519PublicKey) -> dict[str, Any]:
    """The record in a file; raises UserError unless this key has signed it as it is."""
    try:
        with file.open("rb") as handle:
            content = json_text.parse_object(handle.read(LARGEST))
        record, key, signature = (content[part] for part in ("record", "key", "signature"))
        proof = base64.b64decode(signature, validate=True)
        if not isinstance(record, dict):
            raise ValueError("the record is no object")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, LookupError, RecursionError, binascii.Error):
        raise UserError(
            f"{file} is damaged, or no signed record of hanse; ask for it again."
        ) from None
    if key != keys.line(known):
        raise UserError(
            f"{file} is signed with another key than the one given; ask its signer for the public "
            "file, and compare the fingerprints by telephone."
        )
    try:
        known.verify(proof, DOMAIN + _text(record))
    except InvalidSignature:
        raise UserError(f"{file} was changed after it was signed; ask for it again.") from None
    return record


def _text(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
