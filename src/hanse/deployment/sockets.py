"""Messages over a socket of this machine: a head of plain values, and bytes."""

import contextlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any

from hanse.tensors import json_text

HEAD = struct.Struct("!IQ")  # bytes of the head, and of the body
MOST = 2**20  # bytes of a head

Frame = tuple[dict[str, Any], bytes]


def pack(head: Mapping[str, Any], body: bytes) -> bytes:
    """A frame as bytes."""
    data = json.dumps(head).encode()
    return HEAD.pack(len(data), len(body)) + data + body


def unpack(data: bytes) -> Frame:
    """The frame that bytes are; raises ValueError for anything else."""
    if len(data) < HEAD.size:
        raise ValueError("these bytes are too few for a frame")
    size, length = HEAD.unpack(data[: HEAD.size])
    start = HEAD.size + size
    if size > MOST or len(data) != start + length:
        raise ValueError("these bytes are no frame: their lengths are not what they say")
    try:
        head = json_text.parse(data[HEAD.size : start])
    except (ValueError, RecursionError):
        raise ValueError("these bytes are no frame: their head cannot be read") from None
    if not isinstance(head, dict):
        raise ValueError("these bytes are no frame: their head has no names")
    return head, data[start:]


class Connection:
    """One connection, over which frames pass both ways: a head, and a body if there is one.

    `multiprocessing` frames the bytes; its own messages, which are pickled, are never read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._bytes = connection.Connection(os.dup(sock.fileno()))

    def send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        """Send one frame; raises OSError if nobody is there any more."""
        self._bytes.send_bytes(json.dumps([head, bool(body)]).encode())
        if body:  # nothing may be sent to who has heard all, and is gone
            self._bytes.send_bytes(body)

    def cut(self) -> None:
        """Let whoever waits here see the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> Frame:
        """The next frame; raises EOFError when the other side is gone, or speaks otherwise."""
        try:
            head, more = json_text.parse(self._bytes.recv_bytes(MOST))
            return dict(head), self._bytes.recv_bytes() if more else b""
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise EOFError(f"the other side is gone, or sends no frames: {error}") from None

    def waiting(self, seconds: float) -> bool:
        """Whether a frame, or the end, comes within so many seconds."""
        return self._bytes.poll(seconds)

    def close(self) -> None:
        """End the connection."""
        self._bytes.close()
        self._socket.close()


class Listener:
    """Where lines come in; the path of its socket is this user's alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "door"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()

    def enter(self, seconds: float) -> Connection | None:
        """The next line that comes in within so many seconds."""
        self._socket.settimeout(seconds)
        try:
            found, _ = self._socket.accept()
        except TimeoutError:
            return None
        found.settimeout(None)
        return Connection(found)

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()


@contextmanager
def door() -> Iterator[Listener]:
    """A door in a folder of its own: the path of a socket must be short, 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder:
        opened = Listener(Path(folder))
        try:
            yield opened
        finally:
            opened.close()


def call(path: str) -> Connection:
    """A line to the door at a path; raises OSError if nobody opens."""
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(path)
    except OSError:
        found.close()
        raise
    return Connection(found)
