"""Starts a program of Flower's beside a fork server, which starts others in milliseconds.

Flower's long-running programs start others by name, `flwr-clientapp` even for every message, and
importing Flower takes more than a second of a processor. So the first program imports all of
Flower once and forks a fork server: a process of one thread that forks each program when it is
asked for. All of them share the memory of what was imported.
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
from hanse.deployment.flower.fork_client import COMMAND, FORK_SERVER
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

LOOK = 0.2  # seconds between two checks of the parent and the fork server
LEAVING = 10.0  # seconds that a node has to leave the SuperLink; Flower gives up after five

FORKED = {  # the programs that each program may ask for
    NODE: (EXECUTOR, CLIENT),
    SERVER: (EXECUTOR, SERVERAPP, COMMAND),
}
APP = {  # the module of the app that each program runs
    NODE: "hanse.deployment.flower.client_app",
    SERVER: "hanse.deployment.flower.server_app",
}


def main() -> None:
    """Run the program that the first argument names, with the others, beside a fork server."""
    name, parent = sys.argv[1], int(os.environ[PARENT])
    if name != NODE:  # a node leaves the SuperLink first, see _end_with
        die_with_parent(parent)
    import_module(APP[name])
    programs = {word: _program(word) for word in (name, *FORKED[name])}
    listener = _listener(Path(os.environ[FORK_SERVER]))
    if threading.active_count() > 1:
        raise RuntimeError("only a process of one thread may fork")
    gc.freeze()
    main_process = os.getpid()
    fork_server = os.fork()
    if fork_server == 0:
        die_with_parent(main_process)
        name_process("fork-server")
        _serve(listener, programs)
    listener.close()
    if name == NODE:
        # Flower restores this at the first SIGTERM; a second one must not end it while it leaves.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, fork_server, name), daemon=True).start()
    name_process(name)
    if name == SERVER:
        keep_to_fleet()
    sys.argv = sys.argv[1:]
    # A SuperNode that gives up leaves a thread behind, which would keep the process alive.
    os._exit(_exit_code(programs[name]))


def _end_with(parent: int, fork_server: int, name: str) -> None:
    """End this process when its parent or its fork server has ended.

    A node leaves the SuperLink first, at a SIGTERM. Otherwise the SuperLink would take it for
    alive, and accept no other node with its key, until it has missed its heartbeat for a minute.
    The parent is watched here, since Linux would send a death signal whenever one of the parent's
    threads ends.
    """
    while os.getppid() == parent and not os.waitpid(fork_server, os.WNOHANG)[0]:
        time.sleep(LOOK)
    end = time.monotonic() + LEAVING
    while name == NODE and time.monotonic() < end:
        os.kill(os.getpid(), signal.SIGTERM)  # repeated: it is ignored until the node has begun
        time.sleep(LOOK)
    os._exit(1)


def _program(name: str) -> Callable[[], object]:
    """Import a program of Flower's."""
    [entry] = entry_points(group="console_scripts", name=name)
    program: Callable[[], object] = entry.load()
    return program


def _listener(path: Path) -> socket.socket:
    """A socket at which programs are asked for."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _serve(listener: socket.socket, programs: dict[str, Callable[[], object]]) -> None:
    """Fork a program for each list of arguments that comes in, until a needed one has ended."""
    needed: set[int] = set()
    process = os.getpid()
    signal.signal(signal.SIGCHLD, lambda number, frame: _reap(needed))
    while True:
        connection, _ = listener.accept()
        _, outputs, _, _ = socket.recv_fds(connection, 1, 3)
        words = json.loads(_read_all(connection) or b"[]")
        # A needed child must be noted before its end is handled.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        child = os.fork() if words else -1  # without words, the asking process has ended early
        if child == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            for number, output in enumerate(outputs):
                os.dup2(output, number)
            die_with_parent(process)
            _run(words, programs[words[0]], connection)
        if words[:1] == [EXECUTOR]:
            needed.add(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        connection.close()
        for output in outputs:
            os.close(output)


def _reap(needed: set[int]) -> None:
    """Collect the children that have ended; end this process if one of them was needed."""
    with contextlib.suppress(ChildProcessError):  # no child is left
        while child := os.waitpid(-1, os.WNOHANG)[0]:
            if child in needed:
                os._exit(1)


def _run(words: list[str], program: Callable[[], object], connection: socket.socket) -> None:
    """Run a program in this forked process, and send its exit code if it is a command."""
    name_process(words[0])
    if words[0] in RUN_APPS:
        refuse_apps(os.environ[APPS])
    if words[0] != COMMAND:
        connection.close()  # the asking process need not wait
    sys.argv = words
    code = _exit_code(program)
    if words[0] == COMMAND:
        connection.send(bytes([code]))
    os._exit(code)


def _exit_code(program: Callable[[], object]) -> int:
    """Run a program, and return its exit code."""
    code = 0
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # no caller above would print it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code & 255


def _read_all(connection: socket.socket) -> bytes:
    """All bytes until the other side has sent its last."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
