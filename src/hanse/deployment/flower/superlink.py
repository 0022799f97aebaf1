"""The server's side of Flower: a SuperLink, and a run in it that passes messages.

If a part of it is killed, it is started again with a new run of Flower's. All messages under way
are lost then, which the event "anew" reports.
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse.deployment.flower.fork_client import COMMAND, FORK_SERVER
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.inbox import Inbox
from hanse.deployment.flower.launcher import KEYLESS, LARGEST, MOST, SERVER
from hanse.deployment.flower.processes import ManagedProcess, await_port, refuse_busy
from hanse.deployment.sockets import Connection, Frame, Listener
from hanse.errors import UserError

log = logging.getLogger(__name__)

SOCKET = "HANSE_SOCKET"
NAME = "hanse"  # the SuperLink's, among Flower's connections
CONNECTING = 90.0  # seconds that the run's process has to connect
SETTLING = 2.0  # seconds until a killed SuperLink has ended; its children end before it


@dataclass(frozen=True)
class Tls:
    """PEM files: the authority that silos trust, the server's certificate, and its key."""

    authority: Path
    certificate: Path
    key: Path


class FlowerLink:
    """An `Engine` over a SuperLink at a host and port.

    listener: accepts the connection of the process that passes messages.
    keys: public keys of the nodes that may join, in OpenSSH's format; without TLS any node may.
    most: bytes that a node may send in one request.
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        port: int,
        listener: Listener,
        tls: Tls | None = None,
        keys: Sequence[str] = (),
        most: int = MOST,
    ) -> None:
        self._host, self._port, self._listener = host, port, listener
        self._tls, self._keys = tls, keys
        self._home = FlowerHome.prepare(folder, SERVER)
        self._home.install()
        self._more = {
            SOCKET: str(listener.path),
            FORK_SERVER: str(listener.path.with_name("fork-server")),
        }
        self._more |= {LARGEST: str(most), KEYLESS: "" if tls else "1"}
        self._superlink = ManagedProcess(self._home, self._command(), self._more)
        self._connection: Connection | None = None
        self._inbox: Inbox | None = None

    def start(self) -> None:
        """Start what is not running, and wait for the process that passes messages."""
        try:
            self._start()
        except UserError:
            time.sleep(SETTLING)
            if self._superlink.alive:
                raise
            self._start()

    def _start(self) -> None:
        if not self._superlink.alive:
            refuse_busy(self._host, self._port)
            self._superlink.start()
            await_port(self._superlink, self._local_host, self._port)
            self._write_config()
            self._register_nodes()
        self._call("run", str(self._home.app), NAME)
        end = time.monotonic() + CONNECTING
        while (connection := self._listener.accept(0.5)) is None:
            if not self._superlink.alive or time.monotonic() > end:
                raise UserError(f"Flower's run did not start: {self._superlink.last_output()}")
        self._connection = connection
        self._inbox = Inbox(connection)

    def send(self, node: int, ticket: int, body: bytes) -> None:
        if self._connection is not None:
            # A message that is lost with the connection is sent again over the next one.
            with contextlib.suppress(OSError):
                self._connection.send({"do": "push", "node": node, "ticket": ticket}, body)

    def event(self, seconds: float) -> Frame | None:
        event = self._inbox.next(seconds) if self._inbox else None
        if event is not None and event[0]["is"] == "end":
            log.warning("Flower's run has ended; a new one is started")
            self._close()
            self.start()
            return {"is": "anew"}, b""
        return event

    def stop(self) -> None:
        """End the run, and all programs."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send({"do": "stop"})
        self._close()
        self._superlink.stop()

    def _call(self, *words: str) -> None:
        self._home.call(COMMAND, *words, more=self._more)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.cut()
            self._connection = None

    @property
    def _local_host(self) -> str:
        """The host by which this machine reaches its own SuperLink."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104

    def _command(self) -> list[str]:
        words = [SERVER, "--host", self._host, "--port", str(self._port)]
        words += ["--disable-runtime-dependency-installation"]
        if self._tls is None:
            return [*words, "--insecure"]
        words += ["--ssl-ca-certfile", str(self._tls.authority)]
        words += ["--ssl-certfile", str(self._tls.certificate)]
        return [*words, "--ssl-keyfile", str(self._tls.key), "--enable-supernode-auth"]

    def _write_config(self) -> None:
        """Write the SuperLink's address where Flower's commands look for it."""
        host = f"[{self._local_host}]" if ":" in self._local_host else self._local_host
        lines = [f"[superlink.{NAME}]", f'address = "{host}:{self._port}"']
        if self._tls is None:
            lines.append("insecure = true")
        else:
            lines.append(f'root-certificates = "{self._tls.authority}"')
        (self._home.folder / "config.toml").write_text("\n".join(lines) + "\n")

    def _register_nodes(self) -> None:
        """Register the keys of all silos: a SuperLink that was just started knows none."""
        file = self._home.folder / "node.pub"
        for key in self._keys:
            file.write_text(key + "\n")
            self._call("supernode", "register", str(file), NAME)
