"""Flower's programs as children: what they may do, and that they end with their parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hanse.deployment import sockets
from hanse.deployment.flower import launcher, supernode
from hanse.deployment.flower import superlink as flower_link
from hanse.deployment.flower.fork_client import COMMAND, FORK_SERVER
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import NODE, SERVER
from hanse.deployment.flower.processes import ManagedProcess, free_port, refuse_busy
from hanse.deployment.flower.superlink import FlowerLink
from hanse.deployment.flower.supernode import FlowerNode
from hanse.deployment.sockets import listening
from hanse.errors import UserError
from patience import patience
from real_federation import flower_of, flower_programs


def _run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-c", code, *words)
    return subprocess.run(words, capture_output=True, text=True)


def test_app_that_is_not_installed_here_is_not_run(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from hanse.deployment.flower.launcher import refuse_apps
apps = pathlib.Path(sys.argv[1])
if sys.argv[2] == "guarded": refuse_apps(str(apps))
(apps / "evil.app.1.0.0.abc").mkdir(parents=True, exist_ok=True)
"""
    apps = tmp_path / "apps"
    apps.mkdir()
    assert _run(code, str(apps), "unguarded").returncode == 0  # without the guard it gets in
    (apps / "evil.app.1.0.0.abc").rmdir()
    refused = _run(code, str(apps), "guarded")
    assert "a Flower app came that is not the one" in refused.stderr
    assert not list(apps.iterdir())


def test_only_named_programs_are_found(tmp_path: Path) -> None:
    home = FlowerHome.prepare(tmp_path / "flower", NODE)
    assert home.environment()["PATH"] == str(home.programs)
    found = {file.name for file in home.programs.iterdir()}
    wanted = {"flower-supernode", "flower-superexec", "flwr-clientapp", "flwr"}
    assert found == {*wanted, "ask.py"}


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

    def call(*_: object, **__: object) -> str:
        if not dies or not superlink.started:
            raise UserError("`flwr run` of Flower failed")
        return ""

    with listening() as listener:
        link = FlowerLink(tmp_path / "flower", "127.0.0.1", free_port(), listener)
        monkeypatch.setattr(link, "_superlink", superlink)
        monkeypatch.setattr(FlowerHome, "call", call)
        with closing(sockets.connect(str(listener.path))):
            if dies:
                link.start()
            else:  # another fault is not tried again
                with pytest.raises(UserError, match="flwr run"):
                    link.start()
    assert superlink.started == 1


@contextmanager
def _node(tmp_path: Path) -> Iterator[FlowerNode]:
    """The node of a silo that finds no SuperLink."""
    with listening() as listener:
        node = FlowerNode(tmp_path / "flower", f"127.0.0.1:{free_port()}", listener)
        try:
            yield node
        finally:
            node.stop()


def _named(tmp_path: Path) -> dict[str, int]:
    """The processes of that node, by name."""
    return {name: process for process, name in flower_programs(tmp_path / "flower").items()}


def _await(there: Callable[[], object]) -> None:
    end = time.monotonic() + patience(60)
    while not there():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def _whole(tmp_path: Path) -> bool:
    return set(_named(tmp_path)) == {"flower-supernod", "flower-superexe", "fork-server"}


@pytest.mark.end_to_end
@pytest.mark.parametrize("killed", ["flower-supernod", "flower-superexe", "fork-server"])
def test_none_of_a_nodes_programs_goes_on_without_the_others(tmp_path: Path, killed: str) -> None:
    with _node(tmp_path) as node:
        node.start()
        _await(lambda: _whole(tmp_path))
        os.kill(_named(tmp_path)[killed], signal.SIGKILL)
        _await(lambda: not node.alive)  # so that it is started again
        _await(lambda: not flower_of(tmp_path / "flower"))


@pytest.mark.end_to_end
def test_a_node_whose_port_somebody_took_is_started_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken, _node(tmp_path) as node:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with monkeypatch.context() as patch:
            patch.setattr(supernode, "free_port", lambda: taken.getsockname()[1])
            node.start()
        _await(lambda: not node.alive)
        assert "failed to start" in node.last_output()
        node.start()
        _await(lambda: _whole(tmp_path))
        time.sleep(1)
        assert node.alive


@pytest.mark.end_to_end
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = os.fork()
    if parent == 0:
        launcher.die_with_parent()
        with _node(tmp_path) as node:
            node.start()
            time.sleep(3600)
        os._exit(0)
    try:
        _await(lambda: _whole(tmp_path))
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    _await(lambda: not flower_of(tmp_path / "flower"))


@pytest.mark.end_to_end
def test_a_command_ends_as_what_was_forked_for_it_did(tmp_path: Path) -> None:
    """And says what that said, though both are processes of their own."""
    fork_server = {FORK_SERVER: str(tmp_path / "fork-server")}
    words = [SERVER, "--insecure", "--host", "127.0.0.1", "--port", str(free_port())]
    home = FlowerHome.prepare(tmp_path / "flower", SERVER)
    asking = home.programs / "ask.py"  # nothing is started but by the fork server
    asking.write_text(asking.read_text().replace(launcher.__name__, "no.such.module"))
    link = ManagedProcess(home, words, fork_server)
    link.start()
    try:
        _await(lambda: "fork-server" in _named(tmp_path))
        assert "Flower version" in home.call(COMMAND, "--version", more=fork_server)
        with pytest.raises(UserError, match=r"flwr nonsense.*No such command 'nonsense'"):
            home.call(COMMAND, "nonsense", more=fork_server)
    finally:
        link.stop()
