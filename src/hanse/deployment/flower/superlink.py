"""The server's side of Flower: a SuperLink, and in it a run that passes messages.

Whatever of it is killed is started again, and a new run with it: which one it is, only Flower
knows. That everything under way is lost then is told as the event "anew".
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse.deployment.flower.fork_client import COMMAND, NURSERY
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import KEYLESS, LARGEST, MOST, SERVER
from hanse.deployment.flower.processes import ManagedProcess, await_port, refuse_busy
from hanse.deployment.sockets import Connection, Frame, Listener
from hanse.errors import UserError

log = logging.getLogger(__name__)

DOOR = "HANSE_DOOR"
NAME = "hanse"  # the SuperLink's, among Flower's connections
ENTERING = 90.0  # seconds until the run's process has come in
SETTLING = 2.0  # seconds after which a killed SuperLink is gone, as its children were before


@dataclass(frozen=True)
class Tls:
    """PEM files: of the authority that silos trust, of the server's certificate and its key."""

    authority: Path
    certificate: Path
    key: Path


class FlowerLink:
    """An `Engine` over a SuperLink at a host and port.

    keys: public keys of the nodes that may join, in OpenSSH's format; without TLS any may.
    most: bytes that a node may send at once.
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        port: int,
        door: Listener,
        tls: Tls | None = None,
        keys: Sequence[str] = (),
        most: int = MOST,
    ) -> None:
        self._host, self._port, self._door, self._tls, self._keys = host, port, door, tls, keys
        self._home = FlowerHome.prepare(folder, SERVER)
        self._home.install()
        self._more = {DOOR: str(door.path), NURSERY: str(door.path.with_name("nursery"))}
        self._more |= {LARGEST: str(most), KEYLESS: "" if tls else "1"}
        self._superlink = ManagedProcess(self._home, self._command(), self._more)
        self._line: Connection | None = None
        self._events: queue.Queue[Frame] = queue.Queue()

    def start(self) -> None:
        """Start what does not run, and wait for the process that passes messages."""
        try:
            self._enter()
        except UserError:
            time.sleep(SETTLING)
            if self._superlink.alive:
                raise
            self._enter()

    def _enter(self) -> None:
        if not self._superlink.alive:
            refuse_busy(self._host, self._port)
            self._superlink.start()
            await_port(self._superlink, self._near, self._port)
            self._connect()
            self._register()
        self._call("run", str(self._home.app), NAME)
        end = time.monotonic() + ENTERING
        while (line := self._door.enter(0.5)) is None:
            if not self._superlink.alive or time.monotonic() > end:
                raise UserError(f"Flower's run did not start: {self._superlink.last()}")
        self._line = line
        self._events = queue.Queue()
        threading.Thread(target=_read, args=(line, self._events), daemon=True).start()

    def send(self, node: int, ticket: int, body: bytes) -> None:
        if self._line is not None:
            # What is lost with the line is sent again when there is another one.
            with contextlib.suppress(OSError):
                self._line.send({"do": "push", "node": node, "ticket": ticket}, body)

    def event(self, seconds: float) -> Frame | None:
        try:
            found = self._events.get(timeout=seconds) if seconds else self._events.get_nowait()
        except queue.Empty:
            return None
        if found[0]["is"] == "end":
            log.warning("Flower's run has ended; a new one is started")
            self._close()
            self.start()
            return {"is": "anew"}, b""
        return found

    def stop(self) -> None:
        """End the run, and all programs."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send({"do": "stop"})
        self._close()
        self._superlink.stop()

    def _call(self, *words: str) -> None:
        self._home.call(COMMAND, *words, more=self._more)

    def _close(self) -> None:
        if self._line is not None:
            self._line.cut()
            self._line = None

    @property
    def _near(self) -> str:
        """Where this machine itself reaches the SuperLink."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104

    def _command(self) -> list[str]:
        words = [SERVER, "--host", self._host, "--port", str(self._port)]
        words += ["--disable-runtime-dependency-installation"]
        if self._tls is None:
            return [*words, "--insecure"]
        words += ["--ssl-ca-certfile", str(self._tls.authority)]
        words += ["--ssl-certfile", str(self._tls.certificate)]
        return [*words, "--ssl-keyfile", str(self._tls.key), "--enable-supernode-auth"]

    def _connect(self) -> None:
        """Tell Flower's commands where the SuperLink is."""
        host = f"[{self._near}]" if ":" in self._near else self._near
        lines = [f"[superlink.{NAME}]", f'address = "{host}:{self._port}"']
        if self._tls is None:
            lines.append("insecure = true")
        else:
            lines.append(f'root-certificates = "{self._tls.authority}"')
        (self._home.folder / "config.toml").write_text("\n".join(lines) + "\n")

    def _register(self) -> None:
        """Tell a SuperLink that has just been started, and so knows nobody, who may join."""
        file = self._home.folder / "node.pub"
        for key in self._keys:
            file.write_text(key + "\n")
            self._call("supernode", "register", str(file), NAME)


def _read(line: Connection, events: "queue.Queue[Frame]") -> None:
    """Put what comes over a line into a queue, and its end."""
    try:
        while True:
            events.put(line.receive())
    except EOFError:
        pass
    finally:
        events.put(({"is": "end"}, b""))
        line.close()
