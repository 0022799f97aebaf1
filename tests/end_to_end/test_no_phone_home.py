"""The quick start reaches nobody but this machine: every command, every child, every round.

Two tripwires watch: an audit hook in each Python process, and, where there can be one, a network
namespace with loopback alone, which counts what finds no way out of it, whoever asked.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import loopback
from forked import forks
from patience import patience
from real_federation import TRUSTING, free_port
from samples import reviews, write_lines

pytestmark = pytest.mark.end_to_end

TRIPWIRE = Path(__file__).parent.parent / "tripwire"
OUTSIDE = "192.0.2.1"  # kept for documentation: nobody is there (RFC 5737)
# What may have been set to keep commands from a network, and must not be what does it here.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
SHORT = [
    "rounds=1",
    "train.max_steps=1",
    "train.num_train_epochs=null",
    "data.test=12",
    "data.validation=8",
]

CONTACTS = f"""
import socket
for make in (
    lambda: socket.create_connection(("{OUTSIDE}", 80), timeout=0.2),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("{OUTSIDE}", 53)),
    lambda: socket.getaddrinfo("example.invalid", 443),
    lambda: socket.create_connection(("127.0.0.1", 9), timeout=0.2),
):
    try:
        make()
    except OSError:
        pass
"""


class Watched(NamedTuple):
    """Where commands run, and what they have tried so far.

    lost: how many packets of the namespace found no way; none: there is no namespace.
    """

    environment: dict[str, str]
    before: list[str]
    attempts: Callable[[], list[str]]
    lost: Callable[[], int] | None


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    noted, process = tmp_path / "attempts", tmp_path / "process"
    path = [str(TRIPWIRE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    environment |= {"PYTHONPATH": os.pathsep.join(path), "TRIPWIRE": str(noted)}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    isolated = not loopback.refused()

    def attempts() -> list[str]:
        return noted.read_text().splitlines() if noted.exists() else []

    return Watched(
        environment,
        loopback.command(process) if isolated else [],
        attempts,
        (lambda: loopback.lost(process)) if isolated else None,
    )


def test_the_tripwires_notice_who_asks_outside(watched: Watched) -> None:
    """A child of a child, as Flower's programs are; loopback is nobody's business."""
    asks = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CONTACTS!r}])"
    waits = f"{asks}\nprint('done', flush=True)\nsys.stdin.readline()"
    with subprocess.Popen(
        [*watched.before, sys.executable, "-c", waits],
        env=watched.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "done\n"
        lost = watched.lost() if watched.lost else None
        process.stdin.close()
    seen = [tuple(json.loads(line)[2:]) for line in watched.attempts()]
    assert seen == [
        ("socket.connect", OUTSIDE),
        ("socket.sendto", OUTSIDE),
        ("socket.getaddrinfo", "example.invalid"),
    ]
    assert lost is None or lost >= 2


def test_the_quick_start_reaches_nobody(watched: Watched, tmp_path: Path, tiny_llama: Path) -> None:
    home = tmp_path / "work"
    home.mkdir()
    write_lines(home / "reviews.jsonl", reviews(120))
    with _commands(watched, tmp_path / "bin", home) as hanse:
        lost = watched.lost() if watched.lost else 0
        hanse("parts")
        hanse("doctor")
        hanse("init", "--from", "reviews.jsonl", "--model", tiny_llama, "--out", "mine.yaml")
        hanse("check", "mine.yaml", *SHORT)
        hanse("run", "mine.yaml", *SHORT, "output_dir=runs/one")
        hanse("report", "runs/one")
        hanse("evaluate", "runs/one")
        hanse("chat", "runs/one", "--prompt", "a good film")
        hanse("baselines", "mine.yaml", "--seeds", "0", *SHORT, "output_dir=runs/baselines")
        _deploy(hanse, tiny_llama)
        hanse("compare", "runs/one", "runs/deployed")
        assert watched.attempts() == []
        assert watched.lost is None or watched.lost() == lost
    if watched.lost is None:
        pytest.skip(f"watched by the audit hook alone: {loopback.refused()}")


@contextmanager
def _commands(watched: Watched, folder: Path, home: Path) -> Iterator["_Hanse"]:
    folder.mkdir()
    with forks(folder, watched.before, watched.environment) as program:
        yield _Hanse(program, home, watched.environment)


class _Hanse(NamedTuple):
    """Runs commands in a folder, one after another; each must end well."""

    program: Path
    home: Path
    environment: dict[str, str]

    def __call__(self, *words: object) -> None:
        line = [str(self.program), *map(str, words)]
        done = subprocess.run(
            line, cwd=self.home, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])

    @contextmanager
    def meanwhile(self, *words: object) -> Iterator[None]:
        """A command that goes on until it is told to end."""
        line = [str(self.program), *map(str, words)]
        with (self.home / "meanwhile.log").open("w") as log:
            process = subprocess.Popen(
                line, cwd=self.home, env=self.environment, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(patience(120))


def _deploy(hanse: _Hanse, model: Path) -> None:
    """A server and a silo that know each other by keys."""
    hub, own, name = hanse.home / "hub", hanse.home / "own", "silo-1"
    hanse("kit", "init", "--kit", hub)
    hanse("kit", "key", name, "--kit", own)
    hanse("kit", "enrol", own / f"{name}.pub", "--kit", hub)
    hanse("kit", "bundle", "--out", "members.pub", "--kit", hub)
    for file in ("ca.crt", "server.pub"):
        shutil.copy(hub / file, own / file)
    hanse("kit", "trust", "members.pub", "--kit", own)
    hanse("kit", "hash", model)
    port = free_port()
    silo = {"name": name, "server": f"127.0.0.1:{port}", "kit": "own", "state": "state"}
    silo |= {"data": {"path": "reviews.jsonl"}}
    policy = {"min_cohort": 1, "agreement": "never"}
    silo["policy"] = {**TRUSTING, **policy}
    (hanse.home / "silo.yaml").write_text(yaml.safe_dump(silo))
    words = [*SHORT, "num_clients=1", "clients_per_pass=off", "output_dir=runs/deployed"]
    with hanse.meanwhile("join", "silo.yaml"):
        hanse("server", "mine.yaml", *words, "--kit", hub, "--port", port)
