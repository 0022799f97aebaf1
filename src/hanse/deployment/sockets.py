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
    """The frame of a head and a body, as bytes."""
    data = json.dumps(head).encode()
    return HEAD.pack(len(data), len(body)) + data + body


def unpack(data: bytes) -> Frame:
    """The head and body of a frame in bytes; raises ValueError for anything else."""
    if len(data) < HEAD.size:
        raise ValueError("these bytes are too few for a frame")
    size, length = HEAD.unpack(data[: HEAD.size])
    start = HEAD.size + size
    if size > MOST or len(data) != start + length:
        raise ValueError("these bytes are no frame: they are longer or shorter than they declare")
    try:
        head = json_text.parse(data[HEAD.size : start])
    except (ValueError, RecursionError):
        raise ValueError("these bytes are no frame: their head cannot be read") from None
    if not isinstance(head, dict):
        raise ValueError("these bytes are no frame: their head is no JSON object")
    return head, data[start:]


class Connection:
    """A connection that carries frames in both directions: a head, and a body if it has one.

    `multiprocessing` frames the bytes. Its own messages, which are pickled, are never read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._bytes = connection.Connection(os.dup(sock.fileno()))

    def send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        """Send one frame; raises OSError if the other side is gone."""
        self._bytes.send_bytes(json.dumps([head, bool(body)]).encode())
        if body:  # the other side may close as soon as it has received a head without a body
            self._bytes.send_bytes(body)

    def cut(self) -> None:
        """Wake whoever waits for a frame here, with EOFError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> Frame:
        """The next frame; raises EOFError if the other side is gone, or sends no frames."""
        try:
            head, more = json_text.parse(self._bytes.recv_bytes(MOST))
            return dict(head), self._bytes.recv_bytes() if more else b""
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise EOFError(f"the other side is gone, or sends no frames: {error}") from None

    def waiting(self, seconds: float) -> bool:
        """Return true if a frame or the end comes within so many seconds."""
        return self._bytes.poll(seconds)

    def close(self) -> None:
        """End the connection."""
        self._bytes.close()
        self._socket.close()


class Listener:
    """Accepts connections at a Unix socket in a folder that only this user may enter."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "door"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()

    def accept(self, seconds: float) -> Connection | None:
        """The next connection within so many seconds; None if there is none."""
        self._socket.settimeout(seconds)
        try:
            accepted, _ = self._socket.accept()
        except TimeoutError:
            return None
        accepted.settimeout(None)
        return Connection(accepted)

    def close(self) -> None:
        """Accept no connections any more."""
        self._socket.close()


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener in a temporary folder: the path of a socket may have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder:
        listener = Listener(Path(folder))
        try:
            yield listener
        finally:
            listener.close()


def connect(path: str) -> Connection:
    """A connection to the listener at a path; raises OSError if there is none."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return Connection(client)
