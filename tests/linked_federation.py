"""A server and silos as processes joined by local sockets: a deployment without Flower.

Everything else is that of `hanse server` and `hanse join`. Over Flower each exchange takes seconds,
which are waits; here it takes milliseconds, so that tests of many exchanges and faults stay short.
"""

import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hanse.deployment.server import serve
from hanse.deployment.silo import join
from hanse.deployment.sockets import Connection, Frame, Listener, connect
from real_federation import Federation, Process

HUB = "hub"
TRIES = 0.1  # seconds between two tries to reach the hub


class Hub:
    """Passes frames between one server and its silos; each silo's connection is a node.

    Requests under way are lost with their node or with the server.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._nodes: dict[int, Connection] = {}
        self._server: tuple[int, Connection] | None = None

    def run(self, folder: Path) -> None:
        """Pass frames on until the process ends."""
        listener = Listener(folder)
        while True:
            if connection := listener.accept(60.0):
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        number = next(self._numbers)
        try:
            head, _ = connection.receive()
            with self._lock:
                if head["role"] == "server":
                    self._server = number, connection
                else:
                    self._nodes[number] = connection
                self._show()
            while True:
                frame = connection.receive()
                with self._lock:
                    self._pass(number, *frame)
        except EOFError:
            with self._lock:
                self._nodes.pop(number, None)
                if self._server and self._server[0] == number:
                    self._server = None
                self._show()

    def _pass(self, sender: int, head: dict[str, Any], body: bytes) -> None:
        if sender in self._nodes:
            if self._server and self._server[0] == head.pop("server"):  # and not a former one
                self._tell(head, body)
        elif node := self._nodes.get(head["node"]):
            with contextlib.suppress(OSError):
                node.send({"is": "reply", "ticket": head["ticket"], "server": sender}, body)
        else:
            self._tell({"is": "failed", "ticket": head["ticket"], "why": "the node is gone"})

    def _show(self) -> None:
        self._tell({"is": "nodes", "nodes": sorted(self._nodes)})

    def _tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        if self._server:
            with contextlib.suppress(OSError):
                self._server[1].send(head, body)


class LinkedEngine:
    """The server's `Engine`: a connection to the hub."""

    def __init__(self, folder: Path) -> None:
        self._connection = reach(folder, "server")

    def send(self, node: int, ticket: int, body: bytes) -> None:
        self._connection.send({"node": node, "ticket": ticket}, body)

    def event(self, seconds: float) -> Frame | None:
        return self._connection.receive() if self._connection.waiting(seconds) else None


class LinkedNode:
    """A silo's node: it passes messages on to the listener of `hanse join`, and answers back."""

    alive = True
    folder: Path  # of the hub

    def __init__(self, folder: Path, server: str, listener: Listener, *about: object) -> None:
        self._listener = listener

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """The process ends with its connection."""

    def last_output(self) -> str:
        return ""

    def _run(self) -> None:
        hub = reach(self.folder, "silo")
        while True:
            head, body = hub.receive()
            worker = connect(str(self._listener.path))
            worker.send({}, body)
            hub.send(head, worker.receive()[1])
            worker.close()


def reach(folder: Path, role: str) -> Connection:
    """A connection to the hub, which may still have to start."""
    while True:
        with contextlib.suppress(OSError):
            connection = connect(str(folder / "door"))
            connection.send({"role": role})
            return connection
        time.sleep(TRIES)


class LinkedFederation(Federation):
    """A federation of processes, each of which is at the hub instead of Flower.

    watch: called at the start of each process with its name; it may change what the process does.
    """

    def __init__(
        self, home: Path, experiment: Path, data: Path, folder: Path, watch: Callable[[str], object]
    ) -> None:
        super().__init__(home, experiment, data)
        self._folder, self._watch = folder, watch
        self.start(HUB, lambda: Hub().run(folder))

    def start(self, name: str, work: Callable[[], None]) -> Process:
        def linked() -> None:
            self._watch(name)
            LinkedNode.folder = self._folder
            engine = contextlib.contextmanager(self._engine)
            with (
                mock.patch.multiple(serve, _engine=engine, refuse_busy=mock.DEFAULT),
                mock.patch.object(join, "FlowerNode", LinkedNode),
            ):
                work()

        return super().start(name, linked)

    def _engine(self, *about: object) -> Iterator[LinkedEngine]:
        yield LinkedEngine(self._folder)


@contextlib.contextmanager
def linked_federation(
    home: Path, experiment: Path, data: Path, watch: Callable[[str], object]
) -> Iterator[LinkedFederation]:
    """A federation whose processes are killed at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder:
        made = LinkedFederation(home, experiment, data, Path(folder), watch)
        try:
            yield made
        finally:
            made.end()
