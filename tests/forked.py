"""Runs `hanse` commands as processes of their own that need not import torch again.

Importing torch, transformers and PEFT takes a command longer than most of what tests let it do. So
one process imports them once, and is forked for each command. What a test starts is the small
program ASK: it hands over its words, folder, environment, limit and output, ends as the fork does,
passes SIGTERM and SIGINT on, and has the fork killed with it if it is killed itself.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ASK = """import json, os, resource, signal, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({door!r})
signal.signal(signal.SIGTERM, lambda *_: line.send(b"t"))
signal.signal(signal.SIGINT, lambda *_: line.send(b"i"))
socket.send_fds(line, [b"f"], [0, 1, 2])
about = [sys.argv[1:], os.getcwd(), dict(os.environ), resource.getrlimit(resource.RLIMIT_FSIZE)]
with line.makefile("w") as words:
    words.write(json.dumps(about) + "\\n")
end = line.recv(1)
sys.exit(end[0] if end else 1)
"""


@contextmanager
def forks(
    folder: Path, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """A program `hanse` in a folder; whatever it started has ended afterwards.

    before: words of a command in which all commands are run. environment: of it; none: this one's.
    """
    door, program = folder / "door", folder / "hanse"
    asking = folder / "ask.py"
    asking.write_text(ASK.format(door=str(door)))
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -s {asking} "$@"\n')
    program.chmod(0o700)
    words = [*before, sys.executable, "-P", __file__]  # -P: no test is to be imported
    words += [str(door), str(os.getpid())]
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=environment)
    try:
        while not door.exists():
            assert server.poll() is None, "it did not start"
            time.sleep(0.1)
        yield program
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Fork a command for each that asks, as long as the process that started this one lives."""
    from hanse.deployment.flower.launcher import die_with_parent

    die_with_parent(int(sys.argv[2]))
    for name in (
        *("experiment.aliases", "experiment.loading", "simulation.run"),
        *("planning.first_experiment.start", "deployment.server.serve", "deployment.silo.join"),
    ):
        importlib.import_module(f"hanse.{name}")
    from hanse.cli import main as cli

    assert threading.active_count() == 1, "only a process of one thread may fork"
    door = socket.socket(socket.AF_UNIX)
    aside = f"{sys.argv[1]}.aside"
    door.bind(aside)
    door.listen()
    Path(aside).rename(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    server = os.getpid()
    while True:
        line, _ = door.accept()
        if os.fork() == 0:
            door.close()
            _be(line, server, cli.main)
        line.close()


def _be(line: socket.socket, parent: int, command: object) -> None:
    """Be a command, as if it had been started where it was asked for."""
    from hanse.deployment.flower.launcher import die_with_parent

    die_with_parent(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, outputs, _, _ = socket.recv_fds(line, 1, 3)
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    with line.makefile("r") as words:
        argv, folder, environment, limit = json.loads(words.readline())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder for folder in folders if folder and folder not in sys.path]
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    threading.Thread(target=_follow, args=(line,), daemon=True).start()
    sys.argv = ["hanse", *argv]
    end = 1
    try:
        assert callable(command)
        command()
        end = 0
    except SystemExit as said:
        end = said.code if isinstance(said.code, int) else int(said.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        line.send(bytes([end & 255]))
    os._exit(end & 255)


def _follow(line: socket.socket) -> None:
    """Get the signals that who asked has got."""
    while said := line.recv(1):
        os.kill(os.getpid(), {b"t": signal.SIGTERM, b"i": signal.SIGINT}[said])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
