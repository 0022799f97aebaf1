"""Lines that keep Flower quiet and its apps out, each with what happens without it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.deployment.flower import fork_server
from hanse.deployment.flower.fork_server import COMMAND, EXECUTOR
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import APPS, NODE, PARENT, RUN_APPS

# Tells of an event as Flower does when one of its programs begins, and says where that connects to.
TELLING = """
import sys, urllib.request
asked = []
urllib.request.urlopen = lambda request, **_: asked.append(request.full_url) or sys.exit()
from flwr.supercore.telemetry import EventType, create_event
try:
    create_event(EventType.PING, {})
finally:
    print(asked)
"""
# Looks for a newer version as Flower's commands do, and says where that connects to.
LOOKING = """
import requests, threading
asked = []
def post(url, **_):
    asked.append(url)
    raise requests.ConnectionError
requests.post = post
from flwr.supercore import update_check
update_check.warn_if_flwr_update_available(process_name="flwr")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
print(asked)
"""


def _asked(code: str, environment: dict[str, str]) -> bool:
    """Whether a program wants to talk to somebody."""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert "[" in done.stdout, done.stderr
    return done.stdout.strip().splitlines()[-1] != "[]"


def test_flower_tells_nobody_of_itself_and_looks_for_no_update(tmp_path: Path) -> None:
    environment = FlowerHome.prepare(tmp_path / "flower", NODE).environment()
    for code, switch in ((TELLING, "TELEMETRY"), (LOOKING, "UPDATE_CHECK")):
        loud = {name: value for name, value in environment.items() if switch not in name}
        assert _asked(code, loud), "without the switch it would"
        assert not _asked(code, environment)


def _forked(work: Callable[[], object]) -> int:
    """The exit code of a child that does some work."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("program", [*RUN_APPS, EXECUTOR])
def test_what_the_fork_server_forks_to_run_an_app_lets_no_other_one_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """As Flower's programs do with an app that was sent: it is unpacked where apps lie."""
    apps = tmp_path / "apps"
    apps.mkdir()
    monkeypatch.setenv(APPS, str(apps))
    sent = apps / "evil.app.1.0.0.abc"
    here, there = socket.socketpair()
    with here, there:
        work = fork_server._run
        code = _forked(lambda: work([program], sent.mkdir, there))
    runs = program in RUN_APPS
    assert sent.exists() is not runs, "another program may, which is not asked to run any"
    assert code == int(runs)


def test_what_is_started_to_run_an_app_lets_no_other_one_in(tmp_path: Path) -> None:
    """The same where there is no fork server."""
    apps = tmp_path / "apps"
    apps.mkdir()
    sent = apps / "evil.app.1.0.0.abc"
    code = f"""
import pathlib, sys
from hanse.deployment.flower import launcher as flower_program
class Entry:
    def load(self):
        return pathlib.Path({str(sent)!r}).mkdir
flower_program.entry_points = lambda **_: [Entry()]
sys.argv = ["program", *{{words}}]
flower_program.main()
"""
    environment = {**os.environ, APPS: str(apps), PARENT: str(os.getpid())}
    for program in (*RUN_APPS, COMMAND):
        words = [sys.executable, "-c", code.replace("{words}", json.dumps([program]))]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert sent.exists() is (program == COMMAND), program
        if program in RUN_APPS:
            assert "a Flower app came that is not the one" in done.stderr
