"""Identities of clients: from kits, and made for a simulation; private keys stay in them."""

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from hanse.security import kits, members
from hanse.security.identity import Identity, simulated

NAMES = ["north", "south", "west"]


@pytest.fixture
def deployed(tmp_path: Path) -> dict[str, Identity]:
    """The identities of three silos that trust each other."""
    kits.init(tmp_path / "hub", [], 30)
    for name in NAMES:
        kits.enrol(tmp_path / "hub", kits.make_keys(tmp_path / name, name))
        for file in ("ca.crt", "server.pub"):
            (tmp_path / name / file).write_bytes((tmp_path / "hub" / file).read_bytes())
    (tmp_path / "members.pub").write_text(members.written(kits.open_server(tmp_path / "hub")))
    for name in NAMES:
        members.trust(tmp_path / name, tmp_path / "members.pub")
    return {name: kits.open_silo(tmp_path / name, name).identity for name in NAMES}


def clients(seed: int = 7) -> dict[str, Identity]:
    return {name: simulated(seed, name, NAMES) for name in NAMES}


def check(identities: dict[str, Identity]) -> None:
    """Each client is known to all others by the key with which it signs."""
    for name, identity in identities.items():
        assert identity.name == name and set(identity.peers) == {*NAMES} - {name}
        signature = identity.key.sign(b"text")
        for other in identities:
            peers = identities[other].peers
            assert (name in peers) == (name != other)
            if name != other:
                peers[name].verify(signature, b"text")
                with pytest.raises(InvalidSignature):
                    peers[name].verify(signature, b"another text")


def test_clients_know_each_other(deployed: dict[str, Identity]) -> None:
    check(deployed)
    check(clients())


def test_simulated_keys_are_the_same_after_a_resume_and_differ_by_run_and_client() -> None:
    def public(seed: int) -> list[bytes]:
        return [identity.key.public_key().public_bytes_raw() for identity in clients(seed).values()]

    assert public(7) == public(7)
    assert len({*public(7), *public(8)}) == 6


def test_a_client_is_not_its_own_peer_and_knows_no_stranger() -> None:
    peers = simulated(7, "north", NAMES).peers
    assert len(peers) == 2
    for name in ("north", "stranger"):
        with pytest.raises(KeyError):
            peers[name]


class Counted(list[str]):
    """Names that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def test_no_peer_is_derived_or_listed_before_it_is_asked_for() -> None:
    names = Counted(NAMES)
    identity = simulated(7, "north", names)
    assert identity.peers["west"] and len(identity.peers) == 2
    assert names.passes == 0


def test_a_private_key_is_not_shown_pickled_or_copied(deployed: dict[str, Identity]) -> None:
    for identity in (deployed["north"], simulated(7, "north", NAMES)):
        raw = identity.key.private_bytes_raw()
        text = f"{identity!r} {identity} {vars(identity)!r} {identity.peers!r}"
        assert raw.hex() not in text and repr(raw)[2:-1] not in text
        assert repr(identity) == "Identity(name='north')"
        session = {"identity": identity}
        for write in (pickle.dumps, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError):
                write(session)
