"""The public keys of all silos of a federation, in one file that the server has signed.

The signature proves that the file comes from the server unchanged. It does not prove that the silos
in it exist: a server could invent some. Silos compare fingerprints by telephone to be sure.
"""

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hanse import atomic_files
from hanse.errors import UserError
from hanse.security import keys, kits
from hanse.security.keys import Public
from hanse.security.kits import ServerKit

FORMAT = "hanse-members/1"
LARGEST = 64 * 2**20  # bytes; tens of thousands of silos


def written(kit: ServerKit) -> str:
    """The text of members.pub: the enrolled silos' public files, and the server's signature."""
    body = "".join([f"{FORMAT}\n", *(public.text for public in kit.silos.values())])
    signature = base64.b64encode(kit.signing.sign(body.encode())).decode()
    return f"{body}signature {signature}\n"


def trust(folder: Path, file: Path) -> list[Public]:
    """Add the silos in members.pub to a silo's kit; returns those that are new there.

    Raises UserError if the server did not sign the file, or if `kits.enrol` refuses a silo; then
    none is added.
    """
    kits.refuse_changeable(folder)
    server = keys.read_server(folder / "server.pub")
    own_files = {key.stem: keys.read(key) for key in atomic_files.listed(folder) if _is_own(key)}
    known = own_files | kits.members(folder)
    listed = _read(file, server)
    for public in listed:
        former = known.get(public.name)
        if former and former.fingerprints != public.fingerprints:
            raise UserError(
                f"{file} has other keys for {public.name} than this kit; ask {public.name} whether "
                f"they are its own, and if so, remove {folder / 'silos' / public.name}.pub."
            )
    others = {public.name: public for public in listed if public.name not in own_files}
    for public in others.values():
        kits.refuse(folder, {**known, **others}, public)
    return [public for public in others.values() if kits.enrol(folder, public)]


def _is_own(file: Path) -> bool:
    has_key = file.suffix == ".pub" and file.with_suffix(".key").exists()
    return has_key and file.stem not in keys.RESERVED


def _read(file: Path, server: Ed25519PublicKey) -> list[Public]:
    body, word, signature = keys.text_of(file, LARGEST).rpartition("signature ")
    lines = body.split("\n")
    if not word or lines[0] != FORMAT or lines[-1] or (len(lines) - 2) % 5:
        raise UserError(f"{file} is no file of `hanse kit bundle`; ask for it again.")
    try:
        server.verify(base64.b64decode(signature.strip(), validate=True), body.encode())
    except (InvalidSignature, binascii.Error):
        raise UserError(
            f"{file} is not signed by the server that this kit knows; ask its administrator for "
            "it again, and do not use this one."
        ) from None
    places = range(1, len(lines) - 1, 5)
    return [keys.parse("\n".join([*lines[at : at + 5], ""]), str(file)) for at in places]
