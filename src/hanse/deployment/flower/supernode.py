"""A silo's side of Flower: a SuperNode, whose messages arrive at a local socket."""

from pathlib import Path

from hanse.deployment.flower.fork_client import FORK_SERVER
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import NODE
from hanse.deployment.flower.processes import ManagedProcess, free_port
from hanse.deployment.sockets import Listener

SOCKET = "HANSE_SOCKET"


class FlowerNode:
    """A SuperNode for the SuperLink at `server`.

    listener: accepts a connection for each message.
    authority: the PEM file of the certificate authority of the server; None: no TLS.
    key: the private key by which the server knows the node.
    """

    def __init__(
        self,
        folder: Path,
        server: str,
        listener: Listener,
        authority: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self._home = FlowerHome.prepare(folder, NODE)
        self._home.install()
        self._more = {
            SOCKET: str(listener.path),
            FORK_SERVER: str(listener.path.with_name("fork-server")),
        }
        words = [NODE, "--superlink", server, "--host", "127.0.0.1"]
        words += ["--insecure"] if authority is None else ["--root-certificates", str(authority)]
        if key is not None:
            words += ["--auth-supernode-private-key", str(key)]
        self._words = words
        self._node = self._process()

    @property
    def alive(self) -> bool:
        """True while the node is running."""
        return self._node.alive

    def start(self) -> None:
        """Start the node, after ending a former one that may still run."""
        self._node.stop()
        self._node = self._process()
        self._node.start()

    def _process(self) -> ManagedProcess:
        """The program at a port that is free now; the former port may be taken."""
        return ManagedProcess(self._home, [*self._words, "--port", str(free_port())], self._more)

    def stop(self) -> None:
        """End the node."""
        self._node.stop()

    def last_output(self) -> str:
        """The end of the node's output."""
        return self._node.last_output()
