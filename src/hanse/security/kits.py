"""Kits: the folders with the keys of the server or a silo, and the public keys of the others.

The server's kit: ca.key, ca.crt (its own authority), tls.key, tls.crt (for TLS), server.key,
server.pub (it signs requests), silos/ (the public files of enrolled silos), revoked/.
A silo's kit: silo-a.key (it signs replies), silo-a.ssh (Flower's node key), silo-a.pub (to send to
the server), and the files from the server: ca.crt, server.pub, silos/ (the other silos).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hanse import atomic_files
from hanse.errors import UserError
from hanse.security import certificates, keys, trusted_code
from hanse.security.identity import Identity
from hanse.security.keys import Public

SERVER = "server"  # the server's name in signatures
OTHERS = ("ca.crt", "server.pub", "tls.crt", "tls.key")  # made with server.key and ca.key
HERE = ("localhost", "127.0.0.1", "::1")  # hosts in every server certificate
RENEW = "run `hanse kit renew` where the server is; the silos keep what they have"
ANEW = "the server's administrator makes a new kit with `hanse kit init`, and sends you its ca.crt"


@dataclass(frozen=True)
class ServerKit:
    """The server's keys, and the public keys of the enrolled silos."""

    folder: Path
    signing: Ed25519PrivateKey
    silos: dict[str, Public]

    @property
    def certificates(self) -> tuple[Path, Path, Path]:
        """The authority's certificate, the server's certificate and its key, for TLS."""
        return self.folder / "ca.crt", self.folder / "tls.crt", self.folder / "tls.key"

    @property
    def known(self) -> dict[str, Ed25519PublicKey]:
        """The public keys of those whose messages it accepts."""
        return {name: public.signing for name, public in self.silos.items()}


@dataclass(frozen=True)
class SiloKit:
    """A silo's keys, and the public keys of its server and of the other silos.

    silos: the other silos of the federation.
    """

    folder: Path
    name: str
    signing: Ed25519PrivateKey
    server: Ed25519PublicKey
    silos: dict[str, Public]

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the server's."""
        return self.folder / "ca.crt"

    @property
    def node_key(self) -> Path:
        """The private key of this silo's Flower node."""
        return self.folder / f"{self.name}.ssh"

    @property
    def known(self) -> dict[str, Ed25519PublicKey]:
        """The public keys of those whose messages it accepts."""
        return {SERVER: self.server}

    @property
    def identity(self) -> Identity:
        """The silo's identity among the federation's clients."""
        peers = {name: public.signing for name, public in self.silos.items()}
        return Identity(self.name, self.signing, peers)


def init(folder: Path, hosts: Sequence[str], days: int) -> ServerKit:
    """Make a server's kit; raises UserError if the folder already holds a kit."""
    if (folder / "server.key").exists():
        raise UserError(
            f"{folder} is a server's kit already, and the silos know it; use `hanse kit renew` for "
            "a new certificate, or name another folder with --kit."
        )
    if (folder / "ca.key").exists():
        raise UserError(
            f"{folder} has the ca.key of a kit and no server.key, as if `hanse kit init` was "
            "stopped half-way; move it away, or name another folder with --kit."
        )
    if taken := [name for name in OTHERS if (folder / name).exists()]:
        raise UserError(
            f"{folder} has {' and '.join(taken)} already, as a silo's kit has, by which it knows "
            "its server; name another folder with --kit."
        )
    certificates.refuse_hosts(hosts)
    certificates.authority(folder)
    certificates.server(folder, _with_here(hosts), days)
    key = Ed25519PrivateKey.generate()
    keys.write_private(folder / "server.key", key)
    text = f"{keys.line(key.public_key())} server\n"
    atomic_files.write(folder / "server.pub", text.encode(), public=True)
    return open_server(folder)


def renew(folder: Path, hosts: Sequence[str], days: int) -> list[str]:
    """Write a new server certificate for the old hosts and these; returns all of them."""
    certificates.refuse_untimely(folder / "ca.crt", "make a new kit with `hanse kit init`")
    former = certificates.names(certificates.read(folder / "tls.crt"))
    certificates.server(folder, _with_here([*former, *hosts]), days)
    return certificates.names(certificates.read(folder / "tls.crt"))


def open_server(folder: Path, now: datetime | None = None) -> ServerKit:
    """The server's kit in a folder; raises UserError if a check fails."""
    if not (folder / "server.key").exists():
        raise UserError(f"{folder} is no server's kit; make one with `hanse kit init`.")
    refuse_changeable(folder)
    certificates.refuse_untimely(folder / "ca.crt", "make a new kit with `hanse kit init`", now)
    certificates.refuse_untimely(folder / "tls.crt", RENEW, now)
    certificates.refuse_unfit(folder)
    for name in ("ca.key", "tls.key"):
        keys.refuse_readable(folder / name)
    return ServerKit(folder, keys.read_signing(folder / "server.key"), members(folder))


def open_silo(folder: Path, name: str, now: datetime | None = None) -> SiloKit:
    """The silo's kit in a folder; raises UserError if a check fails."""
    keys.vetted(name)
    if not (folder / f"{name}.key").exists():
        raise UserError(
            f"{folder} has no keys of {name}; make them with `hanse kit key {name}`, and send "
            f"{name}.pub to the server's administrator."
        )
    for file in ("ca.crt", "server.pub"):
        if not (folder / file).exists():
            raise UserError(
                f"{folder} has no {file}; the server's administrator has it, and sends it when "
                f"{name} is enrolled."
            )
    refuse_changeable(folder)
    certificates.refuse_untimely(folder / "ca.crt", ANEW, now)
    keys.refuse_readable(folder / f"{name}.ssh")
    others = {other: public for other, public in members(folder).items() if other != name}
    signing, server = keys.read_signing(folder / f"{name}.key"), folder / "server.pub"
    return SiloKit(folder, name, signing, keys.read_server(server), others)


def make_keys(folder: Path, name: str) -> Public:
    """Make a silo's keys on its own machine; raises UserError if they exist."""
    keys.vetted(name)
    for file in (folder / f"{name}.{ending}" for ending in ("key", "ssh", "pub")):
        if file.exists():
            raise UserError(
                f"{file} exists already, and the server may know {name} by it; to use new keys, "
                "move the old ones away, make others, and ask to be enrolled again."
            )
    node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
    keys.write_private(folder / f"{name}.key", signing)
    keys.write_private(folder / f"{name}.ssh", node)
    text = keys.written(name, node, signing)
    atomic_files.write(folder / f"{name}.pub", text.encode(), public=True)
    return keys.parse(text, f"{name}.pub")


def members(folder: Path) -> dict[str, Public]:
    """The silos that a kit knows, by name, without those whose keys were revoked."""
    silos, revoked = {}, _revoked(folder)
    for file in (file for file in atomic_files.listed(folder / "silos") if file.suffix == ".pub"):
        public = keys.read(file)
        if public.name != file.stem:
            raise UserError(f"{file} is the public file of {public.name}; give it that name.")
        if not any(_shares_key(public, other) for other in revoked):
            silos[public.name] = public
    return silos


def enrol(folder: Path, public: Public) -> bool:
    """Add a silo to a kit; returns True if it is new there.

    Raises UserError for the reasons of `refuse`.
    """
    known = members(folder)
    refuse(folder, known, public)
    atomic_files.write(folder / "silos" / f"{public.name}.pub", public.text.encode(), public=True)
    return public.name not in known


def refuse(folder: Path, known: Mapping[str, Public], public: Public) -> None:
    """Raise UserError if a silo cannot be added to a kit with these silos.

    Reasons: a key of it is known under another name, so that one silo would count as two; its name
    is known with other keys; or its keys were revoked.
    """
    for other in _revoked(folder):
        if _shares_key(public, other):
            raise UserError(
                f"a key of {public.name} was revoked, as {other.name}'s; ask for new keys."
            )
    for other in known.values():
        if other.name != public.name and other.name.lower() == public.name.lower():
            raise UserError(
                f"{public.name} and {other.name} differ only in capitals; ask for another name."
            )
        if other.name != public.name and _shares_key(public, other):
            raise UserError(
                f"a key of {public.name} is enrolled already, as {other.name}; one silo counts "
                f"once: ask {public.name} for keys of its own."
            )
    former = known.get(public.name)
    if former and former.fingerprints != public.fingerprints:
        raise UserError(
            f"{public.name} is enrolled with other keys ({former.fingerprints[1]}); if it has new "
            f"ones, run `hanse kit revoke {public.name}` first, if not, somebody takes its name."
        )


def revoke(folder: Path, name: str) -> Public:
    """Remove a silo from a kit; its keys can never be enrolled again."""
    known = members(folder)
    if keys.vetted(name) not in known:
        raise UserError(
            f"{name} is not enrolled in {folder}; it has {', '.join(known) or 'no silos'}."
        )
    # The folder is named after the key, since one name may lose several keys.
    key_name = keys.fingerprint(keys.line(known[name].signing)).removeprefix("SHA256:")
    place = folder / "revoked" / key_name.replace("/", "_") / f"{name}.pub"
    atomic_files.write(place, known[name].text.encode(), public=True)
    (folder / "silos" / f"{name}.pub").unlink()
    return known[name]


def refuse_changeable(folder: Path) -> None:
    """Raise UserError for a kit into which other users of the machine could put keys."""
    named = [folder / name for name in ("ca.crt", "tls.crt", "server.pub")]
    known = [folder / "silos", *atomic_files.listed(folder / "silos")]
    for place in (folder, *named, *known, folder / "revoked", *_below(folder / "revoked")):
        trusted_code.refuse_writable(place, "change whom this kit trusts")


def _revoked(folder: Path) -> list[Public]:
    return [keys.read(file) for file in _below(folder / "revoked") if file.suffix == ".pub"]


def _below(folder: Path) -> list[Path]:
    """All files and folders below a folder; raises UserError if one cannot be listed."""
    places = []
    for place in atomic_files.listed(folder):
        places += [place, *(_below(place) if place.is_dir() else ())]
    return places


def _shares_key(one: Public, other: Public) -> bool:
    return bool(set(one.fingerprints) & set(other.fingerprints))


def _with_here(hosts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*hosts, *HERE]))
