"""A server and silos as processes of this machine, for tests; all of them end with the test.

The kernel ends them with pytest, too, however pytest was killed (Linux).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from chaos_proxy import Proxy, Weather
from hanse.cli import main as cli
from hanse.cli import options
from hanse.deployment.flower import fork_server
from hanse.deployment.flower.launcher import die_with_parent
from hanse.experiment import loading
from hanse.security import kits
from hanse.security import members as bundle
from hanse.simulation import run as simulation
from patience import patience
from stopping import die_at_write

PATIENCE = patience(600)  # seconds until a server must be done

# What lets a deployed run be the simulated one bit for bit, with rows as the experiment reads them.
TRUSTING = {
    "data_settings": ["filter", "columns", "template", "labels"],
    "count_rounding": 1,
    "min_examples": 1,
}
SILOS = [f"silo-{number}" for number in range(1, 5)]
ALONE = ("num_clients=4", "clients_per_pass=off", "rounds=3")


def with_memory(*words: str) -> list[str]:
    """What makes clients remember."""
    return ["algorithm=scaffold", "train.optim=sgd", "train.momentum=0", *words]


def digest(folder: Path) -> str:
    """A hash of a run's adapter."""
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def simulated(experiment: Path, folder: Path, *words: str) -> str:
    """The same of a run with all clients in this process."""
    changes = [*ALONE, *words, f"output_dir={folder}"]
    return digest(simulation.run(loading.load(experiment, changes)))


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Process:
    """A child of this process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._code: int | None = None

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        if self._code is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if number else None
        return self._code

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and see to it that it ends."""
        for sent in (number, signal.SIGKILL):
            if self.code is None:
                os.kill(self.number, sent)
            end = time.monotonic() + patience(10)
            while self.code is None and time.monotonic() < end:
                time.sleep(0.02)


class Federation:
    """Starts and kills the commands of one federation; what they say is in files."""

    def __init__(self, home: Path, experiment: Path, data: Path, *changes: str) -> None:
        self.home, self.experiment, self.data, self.changes = home, experiment, data, changes
        self.port = free_port()
        self.run = home / "deployed"
        self.kit: Path | None = None  # the server's
        self.processes: dict[str, Process] = {}

    def know_each_other(self, names: Sequence[str]) -> None:
        """Make kits for the server and these silos, as their administrators would."""
        self.kit = self.home / "kit"
        kits.init(self.kit, [], 30)
        for name in names:
            kits.enrol(self.kit, kits.make_keys(self.home / f"kit-{name}", name))
        members = self.home / "members.pub"
        members.write_text(bundle.written(kits.open_server(self.kit)))
        for name in names:
            for file in ("ca.crt", "server.pub"):
                shutil.copy(self.kit / file, self.home / f"kit-{name}" / file)
            bundle.trust(self.home / f"kit-{name}", members)

    def server(self, *words: str, dies_at: int | None = None, writing: str = "") -> Process:
        """Start the server (again).

        dies_at: it kills itself when it has written so often, to files of its run folder that begin
            with `writing`.
        """
        output = f"output_dir={self.run}"
        port = ["--port", str(self.port), *(["--kit", self.kit] if self.kit else [])]
        line = ["server", self.experiment, output, *self.changes, *words, *port]

        def work() -> None:
            if dies_at is not None:
                die_at_write(dies_at, self.run / writing)
            _command(line)

        return self.start("server", work)

    def silo(self, name: str, words: Sequence[str] = (), **settings: object) -> Process:
        """Start a silo (again)."""
        values = {
            "name": name,
            "server": f"127.0.0.1:{self.port}",
            "data": {"path": str(self.data)},
            "policy": TRUSTING,
        }
        if self.kit:
            values["kit"] = str(self.home / f"kit-{name}")
        file = self.home / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**values, "state": str(self.home / name), **settings}))
        return self.start(name, lambda: _command(["join", file, *words]))

    def proxy(self, name: str, weather: Weather, seed: int = 0, port: int | None = None) -> int:
        """Start a bad network before the server; the port by which silos reach it.

        port: none: a free one.
        """
        port, said = port or free_port(), str(self.home / f"{name}.faults")
        visits = str(self.home / f"{name}.visits")
        work = Proxy(port, self.port, weather, seed, said, visits).run
        self.start(name, lambda: asyncio.run(work()))
        return port

    def faults(self, name: str) -> int:
        """How many faults a proxy has made."""
        file = self.home / f"{name}.faults"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def visits(self, name: str) -> list[float]:
        """When a connection to a proxy was made."""
        file = self.home / f"{name}.visits"
        return list(map(float, file.read_text().split())) if file.exists() else []

    def kill(self, name: str) -> None:
        """Kill a process as the machine would: without a word."""
        self.processes.pop(name).end(signal.SIGKILL)

    def gone(self, name: str) -> None:
        """Wait until all of Flower's processes of a silo have ended, however it was killed."""
        wait_until_gone(self.home / name / "flower")

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
        process = self.processes["server"]
        end = time.monotonic() + seconds
        while process.code is None:
            assert time.monotonic() < end, f"the server is not done:\n{self.said('server')}"
            time.sleep(0.1)
        assert process.code == 0, self.said("server")

    def end(self) -> None:
        for process in self.processes.values():
            process.end(signal.SIGTERM)

    def start(self, name: str, work: Callable[[], None]) -> Process:
        """Fork a process that does some work: torch, slow to import, is here already."""
        log = os.open(self.home / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.stdout.flush()
        parent, process = os.getpid(), os.fork()
        if process == 0:
            die_with_parent(parent)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.home)
            code = 1
            try:
                _as_new()
                work()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(log)
        self.processes[name] = Process(process)
        return self.processes[name]


def _command(words: Sequence[object]) -> None:
    """Run a command of hanse's."""
    sys.argv = ["hanse", *map(str, words)]
    cli.main()


def _as_new() -> None:
    """Forget what pytest has made of streams and loggers."""
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    logging.getLogger().handlers.clear()
    options.console.file = sys.stdout
    warnings.resetwarnings()


@contextlib.contextmanager
def federation(home: Path, experiment: Path, data: Path, *changes: str) -> Iterator[Federation]:
    """A federation whose processes are killed at the end, whatever happens."""
    made = Federation(home, experiment, data, *changes)
    try:
        yield made
    finally:
        made.end()


def flower_of(folder: Path) -> dict[int, str]:
    """Flower's programs of one command, by process: they have its folder in their environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"FLWR_HOME={folder}".encode() in (process / "environ").read_bytes():
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(process.name)] = words
    return found


def wait_until_gone(folder: Path) -> None:
    """Wait until all of Flower's processes of a command have ended, however it was killed."""
    end = time.monotonic() + patience(60)
    while left := flower_of(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def flower_programs(folder: Path) -> dict[int, str]:
    """Names of Flower's running programs, by process: 15 characters, as process lists show them.

    A script that asks the fork server for a program has the program's name for some milliseconds,
    too. Its command line tells it apart, and it is left out.
    """
    names = {}
    for process, words in flower_of(folder).items():
        with contextlib.suppress(OSError):
            if fork_server.__name__ in words.split():
                names[process] = Path(f"/proc/{process}/comm").read_text().strip()
    return names
