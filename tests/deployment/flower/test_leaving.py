"""A node whose `hanse join` was killed takes its leave, and is asked for it only once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's death signals")

TOGETHER = 6

# A process of several threads, as `hanse join` is; it starts a node, and waits to be killed.
JOIN = """
import os, subprocess, sys, threading, time
held = bytearray(200 * 2**20)  # so that its end takes a while
for index in range(0, len(held), 4096):
    held[index] = 1
for _ in range(8):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
environment = {**os.environ, "HANSE_PARENT": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], env=environment)
time.sleep(60)
"""
# A node as Flower's: at the first SIGTERM it takes its leave, at a second one it ends at once.
NODE = """
import os, signal, sys, time
from pathlib import Path
from hanse.deployment.flower import fork_server as flower_nursery
home = Path(sys.argv[1])

def leave(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (home / "asked").touch()
    time.sleep(0.5)
    (home / "left").touch()
    os._exit(0)

def node():
    signal.signal(signal.SIGTERM, leave)
    (home / "ready").touch()
    while True:
        time.sleep(0.01)

flower_nursery.import_module = lambda name: None
flower_nursery._program = lambda name: node
os.environ["HANSE_NURSERY"] = str(home / "nursery")
sys.argv = ["", "flower-supernode"]
flower_nursery.main()
"""


def _wait(files: list[Path], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not all(file.exists() for file in files) and time.monotonic() < end:
        time.sleep(0.02)
    return all(file.exists() for file in files)


def test_a_node_whose_parent_was_killed_leaves(tmp_path: Path) -> None:
    """Linux sends the death signal once for each thread of the parent that ends."""
    homes = [tmp_path / str(number) for number in range(TOGETHER)]
    parents = []
    for home in homes:
        home.mkdir()
        words = [sys.executable, "-c", JOIN, NODE, str(home)]
        parents.append(subprocess.Popen(words))
    try:
        assert _wait([home / "ready" for home in homes], 60)
    finally:
        for parent in parents:
            os.kill(parent.pid, signal.SIGKILL)
            parent.wait()
    assert _wait([home / "left" for home in homes], 10)
