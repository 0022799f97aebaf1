"""A folder in which Flower finds all that it needs, so that nothing of the user's is touched."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hanse import atomic_files, errors
from hanse.deployment.flower import fork_server, launcher
from hanse.deployment.flower.fork_client import ASK, COMMAND
from hanse.errors import UserError
from hanse.learners.models.model_files import cache_folder

# The same for all versions of hanse, so that silos of another one hear of it in a sentence.
APP = '''"""Names the two thin apps of the package; there is no other code."""

from hanse.deployment.flower.client_app import app as client
from hanse.deployment.flower.server_app import app as server

__all__ = ["client", "server"]
'''
PROJECT = """[project]
name = "hanse"
version = "1.0.0"
description = "Passes bytes between a federated loop and resident workers"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "hanse"

[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
"""
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # glibc: messages of megabytes go back to the system when they are gone, and threads share two
    # pools of memory; else a server of many silos keeps what it no longer needs.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    # Seconds between two looks for a message; each takes the time of two processes.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
}
PATIENCE = 120  # seconds for one of Flower's short commands


def refuse_missing() -> None:
    """Raise UserError if Flower is not installed."""
    what = "carrying messages between machines"
    errors.refuse_missing(what, "flower", ["flwr"], "use `hanse run`, all clients on this machine")


@dataclass(frozen=True)
class FlowerHome:
    """Flower's own folder, its programs as hanse lets them be started, and the app."""

    folder: Path

    @staticmethod
    def prepare(folder: Path, program: str) -> "FlowerHome":
        """The folder, filled for one long-running program and all that this may start."""
        refuse_missing()
        home = FlowerHome(folder.resolve())  # its programs run in it
        atomic_files.make(folder, private=True)
        for made in (home.app, home.apps, home.programs):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        (home.app / "pyproject.toml").write_text(PROJECT)
        (home.app / "app.py").write_text(APP)
        asking = home.programs / "ask.py"
        asking.write_text(ASK.format(program=launcher.__name__, command=COMMAND))
        for name in {*fork_server.FORKED[program], COMMAND}:
            home._name(name, "-S", "-s", str(asking))
        home._name(program, "-m", fork_server.__name__)
        return home

    def _name(self, program: str, *words: str) -> None:
        """Let Python, called with these words, be what is found by a program's name."""
        file = self.programs / program
        file.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words, program])} "$@"\n')
        file.chmod(0o700)

    @property
    def app(self) -> Path:
        """The app's source."""
        return self.folder / "app"

    @property
    def apps(self) -> Path:
        """Where Flower installs apps."""
        return self.folder / "apps"

    @property
    def programs(self) -> Path:
        """Where Flower's programs are found; there is nothing else on their PATH."""
        return self.folder / "bin"

    def install(self) -> None:
        """Install the app where one that a server sends is looked for."""
        texts = [self.app / "pyproject.toml", self.app / "app.py"]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in texts)).hexdigest()
        made = cache_folder() / "flower" / digest[:32]
        with atomic_files.alone(made):
            if not made.is_dir():  # Flower's commands take seconds
                for left in self.folder.glob("*.fab"):  # by a process that was killed
                    left.unlink()
                self.call("flwr", "build", "--app", str(self.app))
                [bundle] = self.folder.glob("*.fab")
                self.call("flwr", "install", str(bundle))
                bundle.unlink()
                with atomic_files.folder(made) as aside:
                    shutil.copytree(self.apps, aside, dirs_exist_ok=True)
        shutil.copytree(made, self.apps, dirs_exist_ok=True)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What Flower's programs find in their environment."""
        own = {"FLWR_HOME": str(self.folder), "PATH": str(self.programs)}
        return {**os.environ, **QUIET, **own, launcher.APPS: str(self.apps), **(more or {})}

    def start(
        self, words: Sequence[str], log: IO[bytes], more: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a program that goes on, in a group of its own; what it says goes to a log."""
        program, *rest = words
        return subprocess.Popen(  # noqa: S603 (ours)
            [self.programs / program, *rest],
            env=self.environment({**more, launcher.PARENT: str(os.getpid())}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def call(self, program: str, *words: str, more: Mapping[str, str] | None = None) -> str:
        """What a short command of Flower's says; raises UserError if it fails."""
        line = f"`{program} {' '.join(words)}` of Flower"
        try:
            done = subprocess.run(  # noqa: S603 (ours)
                [self.programs / program, *words],
                env=self.environment(more),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{line} did not end within {PATIENCE} s.") from None
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[-500:]
            raise UserError(f"{line} failed: {said}")
        return done.stdout
