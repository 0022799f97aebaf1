"""What other machines can reach of a SuperLink."""

import asyncio
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hanse.runtimes.flower_asking import NURSERY
from hanse.runtimes.flower_children import Child, await_port, free_port
from hanse.runtimes.flower_fleet import fleet_only
from hanse.runtimes.flower_home import FlowerHome
from hanse.runtimes.flower_program import SERVER

SERVES = ("192.0.2.1", 8000)
ELSEWHERE = ("203.0.113.9", 4000)
ANY = "/v1/control/start-run"


def _answered(path: str, client: tuple[str, int] | None, kind: str = "http") -> object:
    """What is answered, if the app behind answers nothing: a status, or a kind of message."""
    said: list[dict[str, Any]] = []

    async def app(*_: object) -> None:
        said.append({"status": 0})

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    scope = {"type": kind, "path": path, "client": client, "server": SERVES}
    asyncio.run(fleet_only(app)(scope, receive, send))
    return said[0].get("status", said[0].get("type"))


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("::1", 1), ("192.0.2.1", 1)])
def test_this_machine_reaches_all(client: tuple[str, int]) -> None:
    assert _answered(ANY, client) == 0


@pytest.mark.parametrize("client", [ELSEWHERE, ("what a proxy says", 0), None])
def test_others_reach_what_nodes_need_alone(client: tuple[str, int] | None) -> None:
    assert _answered("/v1/fleet/pull-messages", client) == 0
    for path in (ANY, "/v1/runtime/pull-task", "/docs", "/v1/fleetx", "/v1/Control/start-run", ""):
        assert _answered(path, client) == 403
    assert _answered("/v1/fleet/", client, "websocket") == "websocket.close"


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[int]:
    """The port of a SuperLink."""
    port = free_port()
    home = FlowerHome.prepare(tmp_path / "flower", SERVER)
    words = [SERVER, "--host", "127.0.0.1", "--port", str(port), "--insecure"]
    child = Child(home, words, {NURSERY: str(tmp_path / "nursery"), "HANSE_DOOR": ""})
    child.start()
    try:
        await_port(child, "127.0.0.1", port)
        yield port
    finally:
        child.stop()


def test_a_superlink_lets_others_start_no_run_and_register_no_node(superlink: int) -> None:
    """A proxy here says for whom it asks, and is believed; this is how others come in a test."""

    def asked(path: str, **headers: str) -> int:
        line = http.client.HTTPConnection("127.0.0.1", superlink, timeout=30)
        line.request("POST", path, body=json.dumps({}), headers=headers)
        status = line.getresponse().status
        line.close()
        return status

    other = {"X-Forwarded-For": ELSEWHERE[0]}
    for name in ("start-run", "register-node", "stop-run", "list-runs"):
        path = f"/v1/control/{name}"
        assert asked(path) not in (403, 404), "it answers this machine, whatever it says"
        assert asked(path, **other) == 403
    assert asked("/v1/fleet/pull-messages", **other) not in (403, 404)
