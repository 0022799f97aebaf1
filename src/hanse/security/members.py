"""The silos of a federation, told to each other in one file that the server has signed.

The signature says that the file comes from the server as it was. Whether the silos in it are those
that one has a contract with, it does not say: a server could invent some. Fingerprints do, compared
by telephone.
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
LARGEST = 64 * 2**20  # bytes: of tens of thousands of silos


def written(kit: ServerKit) -> str:
    """The text of members.pub: all that are enrolled, and the server's signature."""
    body = "".join([f"{FORMAT}\n", *(public.text for public in kit.silos.values())])
    signature = base64.b64encode(kit.signing.sign(body.encode())).decode()
    return f"{body}signature {signature}\n"


def trust(folder: Path, file: Path) -> list[Public]:
    """Let a silo's kit know the silos in members.pub; those that are new there.

    Raises UserError unless the server signed the file, and for what `kits.enrol` refuses; then
    none of them is taken.
    """
    kits.refuse_changeable(folder)
    server = keys.read_server(folder / "server.pub")
    own = {key.stem: keys.read(key) for key in atomic_files.listed(folder) if _is_own(key)}
    known = own | kits.members(folder)
    found = _read(file, server)
    for public in found:
        former = known.get(public.name)
        if former and former.fingerprints != public.fingerprints:
            raise UserError(
                f"{file} has other keys for {public.name} than this kit; ask {public.name} whether "
                f"they are its own, and if so, remove {folder / 'silos' / public.name}.pub."
            )
    others = {public.name: public for public in found if public.name not in own}
    for public in others.values():
        kits.refuse(folder, {**known, **others}, public)
    return [public for public in others.values() if kits.enrol(folder, public)]


def _is_own(file: Path) -> bool:
    mine = file.suffix == ".pub" and file.with_suffix(".key").exists()
    return mine and file.stem not in keys.RESERVED


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
