"""Messages that are kept on disk, and read in parts."""

import errno
import gc
import os
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.federation.exchange.spool import SHORT, Spool, Stored


def content(letter: bytes, size: int = 3 * SHORT) -> bytes:
    return letter * size


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_each_message_and_each_part_of_it_comes_back_as_it_was() -> None:
    spool = Spool()
    texts = [os.urandom(SHORT + size) for size in (0, 1, 70_000)]
    kept = [spool.keep(text) for text in texts]
    for text, message in zip(texts, kept, strict=True):
        assert isinstance(message, Stored) and len(message) == len(text)
        for part in (slice(None), slice(8), slice(5, 4000), slice(-3, None), slice(9, 9)):
            assert message[part] == text[part]
        assert message[len(text) - 2 : 10**12] == text[-2:]


def test_a_message_in_parts_is_one() -> None:
    message = Spool().write([b"a" * 5000, memoryview(b"b" * 10), b"", b"c"])
    assert message[4999:] == b"a" + b"b" * 10 + b"c"


def test_short_messages_and_those_on_disk_stay_as_they_are() -> None:
    spool = Spool()
    assert spool.keep(b"short") == b"short"
    stored = spool.keep(content(b"a"))
    assert Spool().keep(stored) is stored


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_the_file_ends_with_the_last_of_its_messages() -> None:
    before, spool = open_files(), Spool()
    first, second = spool.keep(content(b"a")), spool.keep(content(b"b"))
    assert open_files() == before + 1
    del first
    assert second[:1] == b"b" and open_files() == before + 1
    del second
    assert open_files() == before
    third = spool.keep(content(b"c"))
    del spool
    assert third[:2] == b"cc"  # messages outlive what has kept them


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int, data: memoryview, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        Spool().keep(content(b"a"))
