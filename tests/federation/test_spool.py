"""Messages that wait on disk."""

import pytest

from hanse.federation.spool import Spool


def test_each_comes_back_as_it_was_whatever_was_taken_between() -> None:
    with Spool() as spool:
        spool.put("c", b"three")
        spool.put("e", b"five")
        assert spool.take("c") == b"three"
        spool.put("f", b"six")  # with as many waiting as when "e" came
        spool.put("c", b"")
        assert [spool.take(name) for name in "efc"] == [b"five", b"six", b""]
        assert not any(name in spool for name in "cef")


def test_a_name_is_taken_until_its_message_is() -> None:
    with Spool() as spool:
        spool.put("a", b"1")
        with pytest.raises(ValueError, match="a waits already"):
            spool.put("a", b"2")
        assert spool.take("a") == b"1"
        with pytest.raises(KeyError):
            spool.take("a")
