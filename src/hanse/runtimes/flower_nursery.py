"""Starts Flower's ClientApp for each message in milliseconds: it forks, all imports being done.

Flower starts `flwr-clientapp` by name for every message, and importing Flower takes a second of a
processor, four silos on a machine or not. The program of that name that a SuperNode finds here
hands its words to this process, which has imported all of it once and forks.
"""

import gc
import json
import os
import signal
import socket
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

from hanse.runtimes import flower_client  # noqa: F401 (imported once, for all that are forked)
from hanse.runtimes.flower_asking import NURSERY, PROGRAM
from hanse.runtimes.flower_program import APPS, die_with_parent, refuse_apps


def main() -> None:
    """Fork a ClientApp for each list of words that comes in."""
    die_with_parent()
    [entry] = entry_points(group="console_scripts", name=PROGRAM)
    program = entry.load()
    path = Path(os.environ[NURSERY])
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    if threading.active_count() > 1:
        raise RuntimeError("only a process of one thread may fork")
    gc.freeze()
    while True:
        line, _ = door.accept()
        words = json.loads(_all(line))
        if os.fork() == 0:
            door.close()
            line.close()  # who asked need not wait
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent()
            refuse_apps(os.environ[APPS])
            sys.argv = [PROGRAM, *words]
            program()
            os._exit(0)
        line.close()


def _all(line: socket.socket) -> bytes:
    """What comes until the other side has said all."""
    parts = []
    while part := line.recv(65536):
        parts.append(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
