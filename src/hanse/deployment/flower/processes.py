"""Flower's long-running programs as child processes that can be started again."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from hanse.deployment.flower.home import FlowerHome
from hanse.errors import UserError, cleaned

GRACE = 3.0  # seconds that a child has to end by itself
READY = 90.0  # seconds until a program listens


class ManagedProcess:
    """One program and the processes that it starts; the kernel ends them with this process."""

    def __init__(self, home: FlowerHome, words: Sequence[str], more: Mapping[str, str]) -> None:
        self._home, self._words, self._more = home, words, more
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home.folder / f"{words[0]}.log"

    @property
    def alive(self) -> bool:
        """True while the program is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program, after ending a former process that may still run."""
        self.stop()
        with self.log.open("ab") as log:
            self._process = self._home.start(self._words, log, self._more)

    def stop(self) -> None:
        """End the program: by SIGTERM, then by SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                return

    def last_output(self) -> str:
        """The end of the program's log, in one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return cleaned(" ".join(text.split())[-400:])


def listens(host: str, port: int) -> bool:
    """Return true if a server accepts connections at this address."""
    try:
        with socket.create_connection((host, port), timeout=2.0):
            return True
    except OSError:
        return False


def refuse_busy(host: str, port: int) -> None:
    """Raise UserError if this process cannot listen at a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise UserError(
                f"{host}:{port} cannot be listened at ({error.strerror}); choose another --port, "
                "or stop what has it."
            ) from None


def await_port(child: ManagedProcess, host: str, port: int) -> None:
    """Wait until a child listens at a port; raises UserError if it ends before."""
    end = time.monotonic() + READY
    while not listens(host, port):
        if not child.alive or time.monotonic() > end:
            raise UserError(f"{child.log.stem} of Flower did not start: {child.last_output()}")
        time.sleep(0.1)


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
