"""Starts a program of Flower's, and whatever that starts in milliseconds: by a fork.

Flower's long-running programs start others by name, `flwr-clientapp` even for every message, and
importing Flower takes more than a second of a processor. So the first one imports all of it once
and forks off a nursery, a process of one thread that forks whoever is asked for later. All of them
share the memory of what was imported.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from hanse.deployment.flower.fleet_only import keep_to_fleet
from hanse.deployment.flower.fork_client import COMMAND, NURSERY
from hanse.deployment.flower.launcher import (
    APPS,
    CLIENT,
    EXECUTOR,
    NODE,
    PARENT,
    RUN_APPS,
    SERVER,
    SERVERAPP,
    die_with_parent,
    name_process,
    refuse_apps,
)

LOOK = 0.2  # seconds between two looks at whether a program is still needed
LEAVING = 10.0  # seconds that a node has to take its leave; Flower gives up after five

FORKED = {  # what each program, or who talks to it, may want to be started
    NODE: (EXECUTOR, CLIENT),
    SERVER: (EXECUTOR, SERVERAPP, COMMAND),
}
APP = {  # the module of the app that is run
    NODE: "hanse.deployment.flower.client_app",
    SERVER: "hanse.deployment.flower.server_app",
}


def main() -> None:
    """Run the program that the first word names, with the other words, beside its nursery."""
    name, parent = sys.argv[1], int(os.environ[PARENT])
    if name != NODE:  # a node takes its leave first, see _end_with
        die_with_parent(parent)
    import_module(APP[name])
    programs = {word: _program(word) for word in (name, *FORKED[name])}
    door = _door(Path(os.environ[NURSERY]))
    if threading.active_count() > 1:
        raise RuntimeError("only a process of one thread may fork")
    gc.freeze()
    own = os.getpid()
    nursery = os.fork()
    if nursery == 0:
        die_with_parent(own)
        name_process("nursery")
        _tend(door, programs)
    door.close()
    if name == NODE:
        # Flower restores this at the first SIGTERM: a second one must not end it while it leaves.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, nursery, name), daemon=True).start()
    name_process(name)
    if name == SERVER:
        keep_to_fleet()
    sys.argv = sys.argv[1:]
    # A SuperNode that gives up leaves a thread behind that would keep a useless process alive.
    os._exit(_end_of(programs[name]))


def _end_with(parent: int, nursery: int, name: str) -> None:
    """End when who started this does, or the nursery with all that it forked.

    A node takes its leave of the SuperLink first, which would otherwise take it for alive, and let
    nobody else in with its key, until it has missed its heartbeat for a minute. It does so at a
    SIGTERM. The parent's end is looked for here, since Linux would send a death signal for each of
    the parent's threads that ends.
    """
    while os.getppid() == parent and not os.waitpid(nursery, os.WNOHANG)[0]:
        time.sleep(LOOK)
    end = time.monotonic() + LEAVING
    while name == NODE and time.monotonic() < end:
        os.kill(os.getpid(), signal.SIGTERM)  # again, since one is ignored until it has begun
        time.sleep(LOOK)
    os._exit(1)


def _program(name: str) -> Callable[[], object]:
    """A program of Flower's, imported."""
    [entry] = entry_points(group="console_scripts", name=name)
    program: Callable[[], object] = entry.load()
    return program


def _door(path: Path) -> socket.socket:
    """Where words come in."""
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()
    return door


def _tend(door: socket.socket, programs: dict[str, Callable[[], object]]) -> None:
    """Fork a program for each list of words that comes in, until one that must go on has ended."""
    needed: set[int] = set()
    own = os.getpid()
    signal.signal(signal.SIGCHLD, lambda number, frame: _reap(needed))
    while True:
        line, _ = door.accept()
        _, outputs, _, _ = socket.recv_fds(line, 1, 3)
        words = json.loads(_all(line) or b"[]")
        # Whether a child is needed is noted before its end is heard of.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        child = os.fork() if words else -1  # or who asked has ended before it said for what
        if child == 0:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            for number, output in enumerate(outputs):
                os.dup2(output, number)
            die_with_parent(own)
            _run(words, programs[words[0]], line)
        if words[:1] == [EXECUTOR]:
            needed.add(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        line.close()
        for output in outputs:
            os.close(output)


def _reap(needed: set[int]) -> None:
    """Let those go that have ended; end, too, if one of them was needed."""
    with contextlib.suppress(ChildProcessError):  # no child is left
        while child := os.waitpid(-1, os.WNOHANG)[0]:
            if child in needed:
                os._exit(1)


def _run(words: list[str], program: Callable[[], object], line: socket.socket) -> None:
    """Be a program, in a process of its own; who waits for its end is told how it ended."""
    name_process(words[0])
    if words[0] in RUN_APPS:
        refuse_apps(os.environ[APPS])
    if words[0] != COMMAND:
        line.close()  # who asked need not wait
    sys.argv = words
    end = _end_of(program)
    if words[0] == COMMAND:
        line.send(bytes([end]))
    os._exit(end)


def _end_of(program: Callable[[], object]) -> int:
    """The exit code of a program when it has ended."""
    end = 0
    try:
        program()
    except SystemExit as said:
        end = said.code if isinstance(said.code, int) else int(said.code is not None)
    except BaseException:  # there is nobody above who would print it
        traceback.print_exc()
        end = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return end & 255


def _all(line: socket.socket) -> bytes:
    """What comes until the other side has said all."""
    parts = []
    while part := line.recv(65536):
        parts.append(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
