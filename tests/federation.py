"""A server and silos as processes of this machine, for tests; all of them end with the test."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

import hanse

SOURCE = Path(hanse.__path__[0]).parent
PATIENCE = 150.0  # seconds until a server must be done


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Federation:
    """Starts and kills the commands of one federation; what they say is in files."""

    def __init__(self, home: Path, experiment: Path, data: Path, *words: str) -> None:
        self.home, self.experiment, self.data, self.words = home, experiment, data, words
        self.port = free_port()
        self.run = home / "deployed"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def server(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the server (again)."""
        output = f"output_dir={self.run}"
        port = ["--port", str(self.port)]
        return self._start("server", "server", self.experiment, output, *self.words, *words, *port)

    def silo(self, name: str, **settings: object) -> subprocess.Popen[bytes]:
        """Start a silo (again)."""
        values = {"name": name, "server": f"127.0.0.1:{self.port}", "data": {"path": str(self.data)}}
        file = self.home / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**values, "state": str(self.home / name), **settings}))
        return self._start(name, "join", file)

    def kill(self, name: str) -> None:
        """Kill a process as the machine would: without a word."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def said(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def hears(self, name: str, words: str, seconds: float = PATIENCE) -> None:
        """Wait until a process has said some words."""
        end = time.monotonic() + seconds
        while words not in self.said(name):
            assert time.monotonic() < end, f"{name} never said {words!r}:\n{self.said(name)}"
            time.sleep(0.1)

    def done(self, seconds: float = PATIENCE) -> None:
        """Wait until the server has ended well."""
        code = self.processes["server"].wait(seconds)
        assert code == 0, self.said("server")

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(8)
            process.kill()
            process.wait()

    def _start(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "hanse", *map(str, words)],
                cwd=self.home,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[name]


@contextlib.contextmanager
def federation(home: Path, experiment: Path, data: Path, *words: str) -> Iterator[Federation]:
    """A federation whose processes are killed at the end, whatever happens."""
    made = Federation(home, experiment, data, *words)
    try:
        yield made
    finally:
        made.end()
