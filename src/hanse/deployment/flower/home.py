"""The folder of Flower's own files and programs, so that none of the user's are touched."""

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

# The app is the same in all versions of hanse, so that a silo of another version can say so.
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
    # glibc: freed messages of megabytes go back to the system, and threads share two pools of
    # memory. Otherwise a server of many silos keeps memory that it no longer needs.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    # Seconds between two looks for a message; each look occupies two processes.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
}
TIMEOUT = 120  # seconds that one of Flower's short commands may take


def refuse_missing() -> None:
    """Raise UserError if Flower is not installed."""
    what = "carrying messages between machines"
    errors.refuse_missing(what, "flower", ["flwr"], "use `hanse run`, all clients on this machine")


@dataclass(frozen=True)
class FlowerHome:
    """Flower's own folder, with its programs as hanse starts them, and with the app."""

    folder: Path

    @staticmethod
    def prepare(folder: Path, program: str) -> "FlowerHome":
        """Fill the folder for one long-running program and the programs that it may start."""
        refuse_missing()
        home = FlowerHome(folder.resolve())  # its programs run in it
        atomic_files.make(folder, private=True)
        for subfolder in (home.app, home.apps, home.programs):
            shutil.rmtree(subfolder, ignore_errors=True)
            subfolder.mkdir()
        (home.app / "pyproject.toml").write_text(PROJECT)
        (home.app / "app.py").write_text(APP)
        fork_client = home.programs / "ask.py"
        fork_client.write_text(ASK.format(program=launcher.__name__, command=COMMAND))
        for name in {*fork_server.FORKED[program], COMMAND}:
            home._write_program(name, "-S", "-s", str(fork_client))
        home._write_program(program, "-m", fork_server.__name__)
        return home

    def _write_program(self, program: str, *words: str) -> None:
        """Write a program of this name that calls Python with these arguments and its own."""
        file = self.programs / program
        file.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words, program])} "$@"\n')
        file.chmod(0o700)

    @property
    def app(self) -> Path:
        """The app's source."""
        return self.folder / "app"

    @property
    def apps(self) -> Path:
        """The folder into which Flower installs apps."""
        return self.folder / "apps"

    @property
    def programs(self) -> Path:
        """The folder of Flower's programs, the only one on their PATH."""
        return self.folder / "bin"

    def install(self) -> None:
        """Install the app where Flower looks for an app that a server sends."""
        texts = [self.app / "pyproject.toml", self.app / "app.py"]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in texts)).hexdigest()
        cached = cache_folder() / "flower" / digest[:32]
        with atomic_files.alone(cached):
            if not cached.is_dir():  # Flower's commands take seconds
                for leftover in self.folder.glob("*.fab"):  # of a process that was killed
                    leftover.unlink()
                self.call("flwr", "build", "--app", str(self.app))
                [bundle] = self.folder.glob("*.fab")
                self.call("flwr", "install", str(bundle))
                bundle.unlink()
                with atomic_files.folder(cached) as part:
                    shutil.copytree(self.apps, part, dirs_exist_ok=True)
        shutil.copytree(cached, self.apps, dirs_exist_ok=True)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment variables of Flower's programs."""
        own = {"FLWR_HOME": str(self.folder), "PATH": str(self.programs)}
        return {**os.environ, **QUIET, **own, launcher.APPS: str(self.apps), **(more or {})}

    def start(
        self, words: Sequence[str], log: IO[bytes], more: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a long-running program in a process group of its own; its output goes to a log."""
        program, *arguments = words
        return subprocess.Popen(  # noqa: S603 (ours)
            [self.programs / program, *arguments],
            env=self.environment({**more, launcher.PARENT: str(os.getpid())}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def call(self, program: str, *words: str, more: Mapping[str, str] | None = None) -> str:
        """Run a short command of Flower's, and return its output; raises UserError if it fails."""
        command = f"`{program} {' '.join(words)}` of Flower"
        try:
            result = subprocess.run(  # noqa: S603 (ours)
                [self.programs / program, *words],
                env=self.environment(more),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{command} did not end within {TIMEOUT} s.") from None
        if result.returncode:
            output = " ".join((result.stdout + result.stderr).split())[-500:]
            raise UserError(f"{command} failed: {output}")
        return result.stdout
