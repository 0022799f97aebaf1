"""Frames that wait on disk."""

import socket

import pytest

from hanse.deployment.flower.inbox import Inbox
from hanse.deployment.sockets import Connection, Frame
from hanse.federation.exchange import spool


def frames(inbox: Inbox, number: int) -> list[Frame | None]:
    return [inbox.next(20.0) for _ in range(number)]


def test_frames_come_in_order_and_then_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(
        spool._File, "append", lambda file, data, real=spool._File.append: (
            written.append(len(data)),
            real(file, data),
        ),
    )  # fmt: skip
    near, far = (Connection(side) for side in socket.socketpair())
    inbox = Inbox(near)
    assert inbox.next(0.0) is None and inbox.next(0.01) is None
    sent: list[Frame] = [({"n": 1}, b"a" * 100_000), ({"n": 2}, b""), ({"n": 3}, b"c" * 50_000)]
    for frame in sent:
        far.send(*frame)
    assert frames(inbox, 3) == sent
    assert written == [100_000, 50_000]  # the large ones were on disk
    far.close()
    assert inbox.next(20.0) == ({"is": "end"}, b"")
