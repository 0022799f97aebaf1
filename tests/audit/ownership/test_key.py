"""Keys of owners: their files, what follows from a key, and what others learn of it."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError

KEY = OwnershipKey("silo-a", "ab" * 32)


def test_a_key_is_read_as_it_was_written_by_its_owner_alone(tmp_path: Path) -> None:
    key = owners.draw("silo-a", bits=128, place="weights", tensors="*.lora_B.weight", triggers=3)
    owners.write(file := tmp_path / "keys" / "a.key", key)
    assert owners.read(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    owners.write(file := tmp_path / "a.key", KEY)
    file.chmod(0o640)
    with pytest.raises(UserError, match="0640, so other users can reach it"):
        owners.read(file)


def test_a_key_is_not_written_over(tmp_path: Path) -> None:
    owners.write(file := tmp_path / "a.key", KEY)
    with pytest.raises(UserError, match="exists already"):
        owners.write(file, owners.draw("silo-b"))
    assert owners.read(file) == KEY


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": "cd" * 32}, "is damaged"),
        ({"bits": 65}, "is damaged"),
        ({"format": "hanse-ownership-key/1"}, "install the version"),
        ({"format": "else"}, "is damaged, or no key"),
    ],
)
def test_a_changed_key_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    owners.write(file := tmp_path / "a.key", KEY)
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **change}))
    with pytest.raises(UserError, match=sentence):
        owners.read(file)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": "hanse-ownership-key/2"}', "\0"])
def test_other_files_are_no_keys(tmp_path: Path, text: str) -> None:
    (file := tmp_path / "a.key").write_text(text)
    file.chmod(0o600)
    with pytest.raises(UserError, match="is damaged, or no key"):
        owners.read(file)


def test_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        owners.read(tmp_path / "a.key")


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"bits": 16}, "it can have 32 to 4096, since fewer prove nothing"),
        ({"triggers": 5000}, "0 to 1000"),
        ({"place": "norms"}, "it can be product or weights"),
        ({"tensors": ""}, "the pattern of the tensors is ''; it can have 1 to 4096 characters"),
        ({"owner": " "}, "the owner is ' '; it can be 1 to 80 printable characters"),
        ({"owner": "a" * 81}, "1 to 80 printable characters"),
        ({"owner": "silo\x1b[2J"}, "1 to 80 printable characters"),
    ],
)
def test_impossible_choices(choices: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        owners.draw(**{"owner": "silo-a", **choices})  # type: ignore[arg-type]


def test_every_part_of_a_key_changes_all_that_follows_from_it() -> None:
    """A seed whose pattern or owner may vary would give a forger many tries with one commitment."""
    others = [
        replace(KEY, owner="silo-b"),
        replace(KEY, seed="ac" * 32),
        replace(KEY, bits=65),
        replace(KEY, place="weights"),
        replace(KEY, tensors="*q_proj"),
        replace(KEY, triggers=1),
    ]
    assert len({KEY.commitment, *(other.commitment for other in others)}) == 7
    assert len({key.derive("bits") for key in (KEY, *others)}) == 7


def test_what_follows_from_a_key_stays_the_same() -> None:
    """Marks laid by one version must be found by the next."""
    assert KEY.commitment == "fe3300182c30f70bc59532fb313aeba3f33d5d5141c54e5b0bbc805ed6936d65"
    assert KEY.signs()[:16] == [-1, 1, 1, 1, -1, 1, -1, 1, -1, 1, -1, -1, -1, -1, -1, 1]
    assert KEY.signs() != replace(KEY, seed="ac" * 32).signs()
    assert KEY.derive("a") != KEY.derive("b")


def test_the_secret_is_not_shown() -> None:
    assert KEY.seed not in repr(KEY)
    assert KEY.commitment[:16] in repr(KEY)
