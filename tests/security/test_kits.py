"""Kits: keys are born private, names and keys are enrolled once, certificates hold or say why."""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384

from hanse.errors import UserError
from hanse.security import certificates, keys, kits
from hanse.security import members as bundle
from hanse.security.keys import Public
from hanse.security.kits import ServerKit


@pytest.fixture
def kit(tmp_path: Path) -> ServerKit:
    """A server's kit."""
    return kits.init(tmp_path / "kit", ["fl.example.org", "10.0.0.7"], 30)


def silo(home: Path, kit: ServerKit, name: str, *, enrolled: bool = True) -> Public:
    """A silo with a kit of its own, which has what the server sends."""
    public = kits.make_keys(home / name, name)
    for file in ("ca.crt", "server.pub"):
        (home / name / file).write_bytes((kit.folder / file).read_bytes())
    if enrolled:
        kits.enrol(kit.folder, public)
    return public


def test_private_keys_are_their_owners_alone(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    private = [*kit.folder.glob("*.key"), *(tmp_path / "silo-a").glob("*.[ks][es][yh]")]
    assert {file.name for file in private} == {
        *("ca.key", "server.key", "tls.key", "silo-a.key", "silo-a.ssh"),
    }
    assert {file.stat().st_mode & 0o777 for file in private} == {0o600}


def test_ssh_keygen_reads_the_keys_alike(tmp_path: Path) -> None:
    public = kits.make_keys(tmp_path, "silo-a")
    for file, kind, mine in zip(
        ("silo-a.ssh", "silo-a.key"), ("ECDSA", "ED25519"), public.fingerprints, strict=True
    ):
        words = ["ssh-keygen", "-l", "-f", str(tmp_path / file)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert mine in said and f"({kind})" in said
    words = ["ssh-keygen", "-y", "-f", str(tmp_path / "silo-a.ssh")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == public.node.split()


def test_what_was_enrolled_is_known(tmp_path: Path, kit: ServerKit) -> None:
    public = silo(tmp_path, kit, "silo-a")
    assert not kits.enrol(kit.folder, public)  # known by now
    opened = kits.open_server(kit.folder)
    assert opened.known == {"silo-a": public.signing}
    mine = kits.open_silo(tmp_path / "silo-a", "silo-a")
    assert mine.known == {"server": kit.signing.public_key()} and mine.silos == {}
    assert mine.signing.public_key() == public.signing


def test_one_key_is_one_silo(tmp_path: Path, kit: ServerKit) -> None:
    """Sybil: who would count twice must make a file of the same keys under another name."""
    silo(tmp_path, kit, "silo-a")
    signing = keys.read_signing(tmp_path / "silo-a" / "silo-a.key")
    node = keys.serialization.load_ssh_private_key(
        (tmp_path / "silo-a" / "silo-a.ssh").read_bytes(), password=None
    )
    twice = keys.parse(keys.written("silo-b", node, signing), "silo-b.pub")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a key of silo-b is enrolled already, as silo-a"):
        kits.enrol(kit.folder, twice)
    fresh = keys.Ed25519PrivateKey.generate()  # one key of two is enough to be told
    half = keys.parse(keys.written("silo-b", node, fresh), "silo-b.pub")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a key of silo-b is enrolled already, as silo-a"):
        kits.enrol(kit.folder, half)
    assert list(kits.members(kit.folder)) == ["silo-a"]


def test_a_name_is_one_silos(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    for name in ("silo-a", "Silo-A"):
        other = kits.make_keys(tmp_path / "thief" / name, name)
        with pytest.raises(UserError, match=r"with other keys|only in capitals"):
            kits.enrol(kit.folder, other)


def test_somebody_elses_keys_cannot_be_enrolled(tmp_path: Path, kit: ServerKit) -> None:
    text = silo(tmp_path, kit, "silo-a", enrolled=False).text
    other = silo(tmp_path, kit, "silo-b", enrolled=False).text
    swapped = text.split("\n")
    swapped[1] = other.split("\n")[1]
    for changed in (text.replace("silo-a", "silo-c"), "\n".join(swapped)):
        with pytest.raises(UserError, match="does not hold the keys"):
            keys.parse(changed, "silo.pub")


def test_each_of_the_two_keys_is_proven_by_its_own_private_half(tmp_path: Path) -> None:
    """Who wrote a file with one key of his own and one of somebody else's has proofs of his own."""
    mine = [ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()]
    theirs = [ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()]
    assert keys.parse(keys.written("silo-a", *mine), "").name == "silo-a"  # type: ignore[arg-type]
    for at in (0, 1):
        shown = [theirs[each] if each == at else mine[each] for each in (0, 1)]
        public = [f"{keys.line(key.public_key())} silo-a" for key in shown]
        claim = "\n".join(["hanse-silo/1 silo-a", *public])
        proofs = [mine[0].sign(claim.encode(), ec.ECDSA(SHA384())), mine[1].sign(claim.encode())]  # type: ignore[call-arg, arg-type]
        written = [claim, *(f"proof {base64.b64encode(proof).decode()}" for proof in proofs), ""]
        with pytest.raises(UserError, match="does not hold the keys"):
            keys.parse("\n".join(written), "silo-a.pub")


@pytest.mark.parametrize("damage", ["", "hanse-silo/1 a\n", "x" * 70_000, "\x00\n\n\n\n\n"])
def test_what_is_no_public_file_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "silo-a.pub").write_text(damage)
    with pytest.raises(UserError, match="is not the public file of a silo"):
        keys.read(tmp_path / "silo-a.pub")


def test_every_changed_byte_of_a_public_file_is_found(tmp_path: Path) -> None:
    public = kits.make_keys(tmp_path, "silo-a")
    for at in range(0, len(public.text) - 1, 7):
        sign = "B" if public.text[at] == "A" else "A"
        changed = public.text[:at] + sign + public.text[at + 1 :]
        try:
            found = keys.parse(changed, "silo-a.pub")
        except UserError:
            continue
        # Bits of base64 beyond the last byte mean nothing.
        assert (found.name, found.fingerprints) == ("silo-a", public.fingerprints)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../a", "a/b", "a\\b", ".a", "-a", "a b", "a\n", "a\0", "ä", "server", "x" * 65],
)
def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name for a silo"):
        kits.make_keys(tmp_path / "kit", name)
    assert not (tmp_path / "kit").exists()


def test_nothing_is_overwritten(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    for name in ("ca.crt", "server.pub"):  # as the silo is sent them
        shutil.copy(kit.folder / name, tmp_path / "silo-a")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="is a server's kit already"):
        kits.init(kit.folder, [], 30)
    with pytest.raises(UserError, match=r"has ca.crt and server.pub already, as a silo's kit has"):
        kits.init(tmp_path / "silo-a", [], 30)
    with pytest.raises(UserError, match="exists already"):
        kits.make_keys(tmp_path / "silo-a", "silo-a")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_revoked_key_stays_out(tmp_path: Path, kit: ServerKit) -> None:
    public = silo(tmp_path, kit, "silo-a")
    kits.revoke(kit.folder, "silo-a")
    assert kits.open_server(kit.folder).known == {}
    with pytest.raises(UserError, match="was revoked"):
        kits.enrol(kit.folder, public)
    fresh = kits.make_keys(tmp_path / "new", "silo-a")
    assert kits.enrol(kit.folder, fresh)
    with pytest.raises(UserError, match="silo-z is not enrolled"):
        kits.revoke(kit.folder, "silo-z")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    for ending in ("key", "ssh"):
        file = tmp_path / "silo-a" / f"silo-a.{ending}"
        file.chmod(0o640)
        with pytest.raises(UserError, match=rf"{ending} has mode 0640.*`chmod 600"):
            kits.open_silo(tmp_path / "silo-a", "silo-a")
        file.chmod(0o600)
    (kit.folder / "ca.key").chmod(0o644)
    with pytest.raises(UserError, match="mode 0644"):
        kits.open_server(kit.folder)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_kit_is_made_so_that_nobody_else_can_change_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        kit = kits.init(tmp_path / "hub" / "kit", [], 30)
        kits.enrol(kit.folder, kits.make_keys(tmp_path / "a" / "kit", "a"))
        kits.enrol(kit.folder, kits.make_keys(tmp_path / "b" / "kit", "b"))
        kits.revoke(kit.folder, "b")
    finally:
        os.umask(before)
    for home in (tmp_path / "hub", tmp_path / "a"):
        for path in (home, *home.rglob("*")):
            mode = path.stat().st_mode & 0o777
            private = path.suffix in (".key", ".ssh")
            assert mode == (0o600 if private else 0o644) or path.is_dir()
            assert not mode & 0o022
    assert kits.open_server(kit.folder).silos.keys() == {"a"}


@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize(
    "name", [".", "ca.crt", "server.pub", "silos", "silos/silo-b.pub", "revoked", "tls.crt"]
)
def test_a_kit_that_others_can_change_is_refused(
    tmp_path: Path, kit: ServerKit, name: str, mode: int
) -> None:
    """With another server.pub, a silo obeys somebody else."""
    for member in ("silo-a", "silo-b"):
        silo(tmp_path, kit, member)
    mine = tmp_path / "silo-a"
    bundled = tmp_path / "members.pub"
    bundled.write_text(bundle.written(kit))
    bundle.trust(mine, bundled)
    (kit.folder / "revoked").mkdir()
    opened = []
    for folder in (kit.folder, mine):
        place = folder / name
        if not place.exists():
            continue
        place.chmod(place.stat().st_mode | mode)
        with pytest.raises(UserError, match=r"has mode \d+, so other users could change whom"):
            kits.open_server(folder) if folder == kit.folder else kits.open_silo(folder, "silo-a")
        if folder == mine:
            with pytest.raises(UserError, match="so other users could"):
                bundle.trust(mine, bundled)
        place.chmod(place.stat().st_mode & ~mode)
        opened.append(folder)
    assert opened
    kits.open_server(kit.folder)
    kits.open_silo(mine, "silo-a")


def test_a_kit_of_another_user_is_refused(kit: ServerKit, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(kit.folder / "server.pub", 4711, -1)
        kits.open_server(kit.folder)  # root in a container has files of the host's users
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    with pytest.raises(UserError, match="belongs to another user, who could change whom"):
        kits.open_server(kit.folder)


def test_certificates_hold_for_a_time(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    now = datetime.now(UTC)
    with pytest.raises(UserError, match=r"tls.crt expired on .*; run `hanse kit renew`"):
        kits.open_server(kit.folder, now + timedelta(days=31))
    kits.renew(kit.folder, [], 90)
    kits.open_server(kit.folder, now + timedelta(days=31))
    with pytest.raises(UserError, match=r"is valid only from .* set the clock"):
        kits.open_server(kit.folder, now - timedelta(days=1))
    with pytest.raises(UserError, match=r"ca.crt expired on .*administrator makes a new kit"):
        kits.open_silo(tmp_path / "silo-a", "silo-a", now + timedelta(days=4000))


def test_renewing_keeps_hosts_and_the_authority(kit: ServerKit) -> None:
    authority = (kit.folder / "ca.crt").read_bytes()
    hosts = kits.renew(kit.folder, ["fl2.example.org"], 60)
    assert hosts == [
        *("fl.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1", "fl2.example.org"),
    ]
    assert (kit.folder / "ca.crt").read_bytes() == authority


def test_a_certificate_of_another_authority_or_key_is_found(tmp_path: Path, kit: ServerKit) -> None:
    other = kits.init(tmp_path / "other", [], 30)
    mine, kept = kit.folder / "tls.crt", (kit.folder / "tls.crt").read_bytes()
    mine.write_bytes((other.folder / "tls.crt").read_bytes())
    with pytest.raises(UserError, match="was not issued by the authority"):
        kits.open_server(kit.folder)
    mine.write_bytes(kept)
    (kit.folder / "tls.key").write_bytes((other.folder / "tls.key").read_bytes())
    with pytest.raises(UserError, match="is not the key of"):
        kits.open_server(kit.folder)


def test_openssl_takes_the_certificate(kit: ServerKit) -> None:
    words = ["openssl", "verify", "-x509_strict", "-verify_hostname", "fl.example.org"]
    words += ["-CAfile", str(kit.folder / "ca.crt"), str(kit.folder / "tls.crt")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    words[4] = "fl.example.com"
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_no_host(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'fl example' is no host"):
        kits.init(tmp_path / "kit", ["fl example"], 30)
    assert kits.init(tmp_path / "kit", ["fl.example"], 30).silos == {}


def test_half_a_kit_is_said_to_be_one(tmp_path: Path) -> None:
    certificates.authority(tmp_path / "kit")
    with pytest.raises(UserError, match="stopped half-way; move it away"):
        kits.init(tmp_path / "kit", [], 30)


def test_of_a_bundle_that_is_refused_no_silo_is_taken(tmp_path: Path) -> None:
    """The first in it could be taken, but not the second."""
    hub, own = tmp_path / "hub", tmp_path / "own"
    kits.init(hub, [], 30)
    for name in ("north", "south"):
        kits.enrol(hub, kits.make_keys(tmp_path / name, name))
    own.mkdir()
    shutil.copy(hub / "server.pub", own / "server.pub")
    kits.enrol(own, keys.read(hub / "silos" / "south.pub"))
    kits.revoke(own, "south")
    members = tmp_path / "members.pub"
    members.write_text(bundle.written(kits.open_server(hub)))
    with pytest.raises(UserError, match="a key of south was revoked"):
        bundle.trust(own, members)
    assert kits.members(own) == {}


def test_a_revoked_silo_is_not_known_although_its_file_came_back(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kits.init(kit, [], 30)
    public = kits.make_keys(tmp_path / "north", "north")
    kits.enrol(kit, public)
    kits.revoke(kit, "north")
    (kit / "silos" / "north.pub").write_text(public.text)
    assert kits.open_server(kit).silos == {}


@pytest.mark.parametrize("file", ["ca.crt", "tls.crt", "tls.key", "server.key"])
def test_a_damaged_kit_is_said_by_its_file(kit: ServerKit, file: str) -> None:
    (kit.folder / file).write_bytes(b"damaged")
    with pytest.raises(UserError, match=file):
        kits.open_server(kit.folder)


def test_silos_know_each_other_by_a_signed_file(tmp_path: Path, kit: ServerKit) -> None:
    for name in ("silo-a", "silo-b", "silo-c"):
        silo(tmp_path, kit, name)
    file = tmp_path / "members.pub"
    file.write_text(bundle.written(kits.open_server(kit.folder)))
    assert [public.name for public in bundle.trust(tmp_path / "silo-a", file)] == [
        *("silo-b", "silo-c"),
    ]
    assert bundle.trust(tmp_path / "silo-a", file) == []
    assert list(kits.open_silo(tmp_path / "silo-a", "silo-a").silos) == ["silo-b", "silo-c"]


def test_a_file_of_members_from_elsewhere_is_refused(tmp_path: Path, kit: ServerKit) -> None:
    silo(tmp_path, kit, "silo-a")
    silo(tmp_path, kit, "silo-b")
    text, file = bundle.written(kits.open_server(kit.folder)), tmp_path / "members.pub"
    other = kits.init(tmp_path / "other", [], 30)
    kits.enrol(other.folder, kits.make_keys(tmp_path / "x", "silo-x"))
    lines = text.split("\n")
    for changed in (
        bundle.written(kits.open_server(other.folder)),  # another server's
        "\n".join([lines[0], *lines[6:]]),  # one silo left out
        text.replace("silo-b", "silo-x"),
    ):
        file.write_text(changed)
        with pytest.raises(UserError, match="is not signed by the server"):
            bundle.trust(tmp_path / "silo-a", file)
    assert not (tmp_path / "silo-a" / "silos").exists()


def test_other_keys_for_a_known_silo_are_refused(tmp_path: Path, kit: ServerKit) -> None:
    """A server that puts a key of its own in a silo's place, the reader's or another's."""
    silo(tmp_path, kit, "silo-a")
    silo(tmp_path, kit, "silo-b")
    file = tmp_path / "members.pub"
    file.write_text(bundle.written(kits.open_server(kit.folder)))
    bundle.trust(tmp_path / "silo-a", file)
    for name in ("silo-a", "silo-b"):
        forged = ServerKit(
            kit.folder, kit.signing, {name: kits.make_keys(tmp_path / f"forged-{name}", name)}
        )
        file.write_text(bundle.written(forged))
        with pytest.raises(UserError, match=f"has other keys for {name} than this kit"):
            bundle.trust(tmp_path / "silo-a", file)


def test_commands(hanse: Callable[..., Any], tmp_path: Path) -> None:
    """What docs/security.md says, in its order."""
    assert "server   SHA256:" in hanse("kit", "init", "--host", "fl.example.org").out
    for name in ("silo-a", "silo-b"):
        assert "stay here" in hanse("kit", "key", name, "--kit", name).out
        said = hanse("kit", "enrol", f"{name}/{name}.pub")
        assert said.code == 0 and "enrolled as" in said.out
        for file in ("ca.crt", "server.pub"):
            shutil.copy(tmp_path / "kit" / file, tmp_path / name)
    assert hanse("kit", "bundle").code == 0
    assert "silo-b   node SHA256:" in hanse("kit", "trust", "members.pub", "--kit", "silo-a").out
    assert list(kits.open_silo(tmp_path / "silo-a", "silo-a").silos) == ["silo-b"]
    assert hanse("kit", "revoke", "silo-b").code == 0
    refused = hanse("kit", "enrol", "silo-b/silo-b.pub")
    assert refused.code == 2 and "was revoked" in refused.err
    assert "fl.example.org" in hanse("kit", "renew", "--days", "30").out
    assert hanse("kit", "init").code == 2


def test_the_hash_of_a_model(hanse: Callable[..., Any], tiny_llama: Path, tiny_gpt2: Path) -> None:
    said = hanse("kit", "hash", tiny_llama).out
    assert re.fullmatch(r"[0-9a-f]{64}\n", said)
    assert hanse("kit", "hash", tiny_gpt2).out != said
    assert hanse("kit", "hash", "some/model").code == 2


def test_the_certificates_of_the_module_are_not_for_any_other_use(kit: ServerKit) -> None:
    found = certificates.read(kit.folder / "tls.crt")
    assert found.not_valid_after_utc - found.not_valid_before_utc <= timedelta(days=31)
