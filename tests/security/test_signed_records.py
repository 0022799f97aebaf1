"""Signed records: what is signed is what is read, and whoever signs is known."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hanse.errors import UserError
from hanse.security import keys, kits, signed_records

KEY = Ed25519PrivateKey.generate()
RECORD = {"owner": "silo-a", "bits": 64, "p": 5.4e-20}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "record.json"
    file.write_bytes(signed_records.signed(RECORD, KEY))
    return file


def test_a_record_is_read_as_it_was_signed(file: Path) -> None:
    assert signed_records.opened(file, KEY.public_key()) == RECORD


def test_a_changed_record_is_refused(file: Path) -> None:
    content = json.loads(file.read_text())
    content["record"]["bits"] = 65
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was changed after it was signed"):
        signed_records.opened(file, KEY.public_key())


def test_another_signer_is_refused(file: Path) -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(UserError, match="is signed with another key than the one given"):
        signed_records.opened(file, other.public_key())
    content = json.loads(file.read_text())
    content["key"] = keys.line(other.public_key())
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was changed after it was signed"):
        signed_records.opened(file, other.public_key())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"record": 1, "key": "", "signature": ""}', '{"record": {}}']
)
def test_other_files_are_no_records(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match="is damaged, or no signed record"):
        signed_records.opened(tmp_path / "record.json", KEY.public_key())


def test_silos_and_the_server_sign_with_their_kits(tmp_path: Path) -> None:
    kits.init(tmp_path / "hub", [], 30)
    kits.make_keys(tmp_path / "kit", "silo-a")
    for folder, name in (("hub", "server"), ("kit", "silo-a")):
        signing = signed_records.signing_key(tmp_path / folder, name)
        named, public = signed_records.public_key(tmp_path / folder / f"{name}.pub")
        assert (named, keys.line(public)) == (name, keys.line(signing.public_key()))


def test_a_kit_without_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no silo-b\.key; name the kit with --kit"):
        signed_records.signing_key(tmp_path, "silo-b")
