"""A node whose `hanse join` was killed takes its leave, and is asked for it only once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patience import patience

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's death signals")

TOGETHER = 6

# A process of several threads, as `hanse join` is; it starts a node, and waits to be killed.
JOIN = """
import os, subprocess, sys, threading, time
held = bytearray(200 * 2**20)  # so that its end takes a while
for index in range(0, len(held), 4096):
    held[index] = 1
for _ in range(8):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
environment = {**os.environ, "HANSE_PARENT": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], env=environment)
time.sleep(3600)
"""
# A node with Flower's own answer to SIGTERM; its leave takes a while, or does not end at all.
NODE = """
import os, sys, time
from pathlib import Path
from flwr.supercore.exit import register_signal_handlers
from hanse.deployment.flower import fork_server
home, seconds, fork_server.LEAVING = Path(sys.argv[1]), *map(float, sys.argv[2:])

def leave():
    (home / "asked").touch()
    time.sleep(seconds)
    (home / "left").touch()

def node():
    register_signal_handlers(None, exit_handlers=[leave])
    (home / "ready").write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)

fork_server.import_module = lambda name: None
fork_server._program = lambda name: node
os.environ |= {"HANSE_FORK_SERVER": str(home / "fork-server"), "FLWR_TELEMETRY_ENABLED": "0"}
sys.argv = ["", "flower-supernode"]
fork_server.main()
"""


def _wait(files: list[Path]) -> bool:
    end = time.monotonic() + patience(60)
    while not all(file.exists() for file in files) and time.monotonic() < end:
        time.sleep(0.02)
    return all(file.exists() for file in files)


def _orphaned(homes: list[Path], seconds: float) -> None:
    """Start nodes, and kill who started them once they are at work."""
    parents = []
    for home in homes:
        home.mkdir()
        words = [sys.executable, "-c", JOIN, NODE, str(home), str(seconds), str(patience(3))]
        parents.append(subprocess.Popen(words))
    try:
        assert _wait([home / "ready" for home in homes])
    finally:
        for parent in parents:
            os.kill(parent.pid, signal.SIGKILL)
            parent.wait()


def _runs(process: int) -> bool:
    """Whether it has not ended; one that nobody has waited for has."""
    file = Path(f"/proc/{process}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_node_whose_parent_was_killed_leaves(tmp_path: Path) -> None:
    """Linux sends the death signal once for each thread of the parent that ends."""
    homes = [tmp_path / str(number) for number in range(TOGETHER)]
    _orphaned(homes, 0.5)
    assert _wait([home / "left" for home in homes])


def test_a_node_that_cannot_leave_ends(tmp_path: Path) -> None:
    home = tmp_path / "node"
    _orphaned([home], 600)
    node = int((home / "ready").read_text())
    end = time.monotonic() + patience(60)
    while _runs(node) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _runs(node)
    assert (home / "asked").exists() and not (home / "left").exists()
