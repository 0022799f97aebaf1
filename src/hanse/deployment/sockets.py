"""Messages over a socket of this machine: a head of plain values, and bytes."""

import contextlib
import json
import select
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        head = json.loads(data[HEAD.size : start])
    except (ValueError, RecursionError):
        raise ValueError("these bytes are no frame: their head cannot be read") from None
    if not isinstance(head, dict):
        raise ValueError("these bytes are no frame: their head has no names")
    return head, data[start:]


class Line:
    """One connection, over which frames pass both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        """Send one frame; raises OSError if nobody is there any more."""
        data = json.dumps(head).encode()
        self._socket.sendall(HEAD.pack(len(data), len(body)) + data)
        if body:  # nothing may be sent to who has heard all, and is gone
            self._socket.sendall(body)

    def cut(self) -> None:
        """Let whoever waits here see the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> Frame:
        """The next frame; raises EOFError when the other side is gone, or speaks otherwise."""
        size, length = HEAD.unpack(self._exactly(HEAD.size))
        if size > MOST:
            raise EOFError("a head is too long")
        try:
            head: dict[str, Any] = dict(json.loads(self._exactly(size)))
        except (ValueError, TypeError, RecursionError) as error:
            raise EOFError(f"a head is no object of JSON: {error}") from None
        return head, self._exactly(length)

    def waiting(self, seconds: float) -> bool:
        """Whether a frame, or the end, comes within so many seconds."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self._socket.recv(min(count - len(parts), 2**20))
            except OSError as error:
                raise EOFError(str(error)) from None
            if not part:
                raise EOFError("the other side is gone")
            parts += part
        return bytes(parts)


class Door:
    """Where lines come in; the path of its socket is this user's alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "door"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()

    def enter(self, seconds: float) -> Line | None:
        """The next line that comes in within so many seconds."""
        self._socket.settimeout(seconds)
        try:
            found, _ = self._socket.accept()
        except TimeoutError:
            return None
        found.settimeout(None)
        return Line(found)

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()


@contextmanager
def door() -> Iterator[Door]:
    """A door in a folder of its own: the path of a socket must be short, 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder:
        opened = Door(Path(folder))
        try:
            yield opened
        finally:
            opened.close()


def call(path: str) -> Line:
    """A line to the door at a path; raises OSError if nobody opens."""
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(path)
    except OSError:
        found.close()
        raise
    return Line(found)
