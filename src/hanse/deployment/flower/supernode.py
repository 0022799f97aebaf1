"""A silo's side of Flower: a SuperNode, whose messages come in at a door."""

from pathlib import Path

from hanse.deployment.flower.fork_client import NURSERY
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import NODE
from hanse.deployment.flower.processes import ManagedProcess, free_port
from hanse.deployment.sockets import Listener

DOOR = "HANSE_DOOR"


class FlowerNode:
    """A SuperNode for the SuperLink at `server`.

    authority: the PEM file of the certificate by which the server is known; none: no TLS.
    key: the private key by which the node is known.
    """

    def __init__(
        self,
        folder: Path,
        server: str,
        door: Listener,
        authority: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self._home = FlowerHome.prepare(folder, NODE)
        self._home.install()
        self._more = {DOOR: str(door.path), NURSERY: str(door.path.with_name("nursery"))}
        words = [NODE, "--superlink", server, "--host", "127.0.0.1"]
        words += ["--insecure"] if authority is None else ["--root-certificates", str(authority)]
        if key is not None:
            words += ["--auth-supernode-private-key", str(key)]
        self._words = words
        self._node = self._fresh()

    @property
    def alive(self) -> bool:
        """Whether the node runs."""
        return self._node.alive

    def start(self) -> None:
        """Start it, after ending what may still run."""
        self._node.stop()
        self._node = self._fresh()
        self._node.start()

    def _fresh(self) -> ManagedProcess:
        """The program, at a port that nobody has now: somebody may have taken the last one."""
        return ManagedProcess(self._home, [*self._words, "--port", str(free_port())], self._more)

    def stop(self) -> None:
        """End it."""
        self._node.stop()

    def last(self) -> str:
        """The end of what the node said."""
        return self._node.last()
