"""Frames that come over a connection, on disk until they are taken."""

import queue
import threading
from typing import Any

from hanse.deployment.sockets import Connection, Frame
from hanse.federation.exchange.spool import Spool
from hanse.tensors.serialization import Content


class Inbox:
    """The frames that a thread receives over a connection, in their order.

    They may come faster than the server adds updates, so large bodies wait on disk. After the last
    one comes the event "end".
    """

    def __init__(self, connection: Connection) -> None:
        self._frames: queue.Queue[tuple[dict[str, Any], Content]] = queue.Queue()
        threading.Thread(target=self._receive, args=(connection,), daemon=True).start()

    def next(self, seconds: float) -> Frame | None:
        """The next frame; None if none comes within so many seconds."""
        try:
            frame = self._frames.get(timeout=seconds) if seconds else self._frames.get_nowait()
        except queue.Empty:
            return None
        return frame[0], bytes(frame[1][:])

    def _receive(self, connection: Connection) -> None:
        spool = Spool()
        try:
            while True:
                head, body = connection.receive()
                self._frames.put((head, spool.keep(body)))
                del body  # or it would stay in memory until the next one comes
        except EOFError:
            pass
        finally:
            self._frames.put(({"is": "end"}, b""))
            connection.close()
