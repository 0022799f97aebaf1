"""A node whose key was revoked is not in the SuperLink's database."""

from pathlib import Path

import pytest

from hanse.runtimes.flower_members import Members


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """Members of a run that two silos were registered in."""
    found = Members(tmp_path / "state.db")
    found.settle(["key of a", "key of b"])
    for name in ("state.db", "state.db-wal"):
        (tmp_path / name).write_text("both")
    return found


def test_database_stays_while_all_of_it_may_join(members: Members) -> None:
    members.settle(["key of a", "key of b", "key of c"])
    assert members.database.read_text() == "both"


def test_a_revoked_key_takes_the_database_with_it(members: Members) -> None:
    members.settle(["key of b"])
    assert [file.name for file in members.database.parent.iterdir()] == ["members.json"]
    members.database.write_text("only b")
    members.settle(["key of b"])
    assert members.database.read_text() == "only b"


def test_a_key_is_known_to_be_there_before_it_is_registered(members: Members) -> None:
    members.settle(["key of a", "key of b", "key of c"])  # and the server is killed in the middle
    members.settle(["key of a", "key of b"])
    assert not members.database.exists()


def test_a_database_that_nobody_noted_the_members_of_goes(members: Members) -> None:
    members.database.with_name("members.json").unlink()
    members.settle(["key of a", "key of b"])
    assert not members.database.exists()
