"""Flower's programs as children: what they may do, and that they end with their parent."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from federation import flower_of
from hanse.errors import UserError
from hanse.runtimes import flower_link, frames
from hanse.runtimes.flower_asking import NURSERY
from hanse.runtimes.flower_children import Child, free_port, refuse_busy
from hanse.runtimes.flower_home import NODE, FlowerHome
from hanse.runtimes.flower_link import FlowerLink
from hanse.runtimes.frames import door


def _run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-c", code, *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_app_that_is_not_installed_here_is_not_run(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from hanse.runtimes.flower_program import refuse_apps
apps = pathlib.Path(sys.argv[1])
if sys.argv[2] == "guarded": refuse_apps(str(apps))
(apps / "evil.app.1.0.0.abc").mkdir(parents=True, exist_ok=True)
"""
    apps = tmp_path / "apps"
    apps.mkdir()
    assert _run(code, str(apps), "unguarded").returncode == 0  # without the guard it gets in
    (apps / "evil.app.1.0.0.abc").rmdir()
    refused = _run(code, str(apps), "guarded")
    assert "the server sent a Flower app that is not the one" in refused.stderr
    assert not list(apps.iterdir())


def test_only_named_programs_are_found(tmp_path: Path) -> None:
    home = FlowerHome.prepare(tmp_path / "flower", NODE)
    assert home.environment()["PATH"] == str(home.programs)
    found = {file.name for file in home.programs.iterdir()}
    assert found == {*NODE, "ask.py"}
    assert "flwr-agentapp" not in found and "flwr-serverapp" not in found


def test_port_in_use_is_said_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be listened at"):
            refuse_busy("127.0.0.1", port)


class Dying:
    """A SuperLink that was killed, and still looks alive when its children are gone."""

    def __init__(self) -> None:
        self.looks = 0
        self.started = 0

    @property
    def alive(self) -> bool:
        self.looks += 1
        return self.looks == 1 or self.started > 0

    def start(self) -> None:
        self.started += 1


@pytest.mark.parametrize("dies", [True, False])
def test_a_superlink_that_is_on_its_way_out_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    monkeypatch.setattr(flower_link, "SETTLING", 0.0)
    monkeypatch.setattr(flower_link, "await_port", lambda *_: None)
    superlink = Dying()
    superlink.started = 0 if dies else 1

    def call(*_: object) -> str:
        if not dies or not superlink.started:
            raise UserError("`flwr run` of Flower failed")
        return ""

    with door() as entrance:
        link = FlowerLink(tmp_path / "flower", "127.0.0.1", free_port(), entrance)
        monkeypatch.setattr(link, "_superlink", superlink)
        monkeypatch.setattr(FlowerHome, "call", call)
        with closing(frames.call(str(entrance.path))):
            if dies:
                link.start()
            else:  # another fault is not tried again
                with pytest.raises(UserError, match="flwr run"):
                    link.start()
    assert superlink.started == 1


@pytest.mark.end_to_end
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "flower"
    parent = os.fork()
    if parent == 0:
        more = {NURSERY: str(tmp_path / "nursery")}
        Child(FlowerHome.prepare(home, NODE), ["nursery"], more).start()
        time.sleep(120)
        os._exit(0)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "nursery").exists():
            assert time.monotonic() < end, "the nursery did not start"
            time.sleep(0.1)
        with socket.socket(socket.AF_UNIX) as line:  # a grandchild, which finds nobody to talk to
            line.connect(str(tmp_path / "nursery"))
            line.sendall(json.dumps(["--insecure", "--token", "t"]).encode())
            line.shutdown(socket.SHUT_WR)
            line.recv(1)
        while len(flower_of(home)) < 2:
            assert time.monotonic() < end, "nothing was forked"
            time.sleep(0.02)
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    end = time.monotonic() + 5
    while left := flower_of(home):
        assert time.monotonic() < end, left
        time.sleep(0.05)
