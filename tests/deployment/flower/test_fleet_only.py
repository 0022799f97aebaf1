"""What other machines can reach of a SuperLink."""

import asyncio
import http.client
import json
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.flower.fleet_only import App, Receive, Send, fleet_only
from hanse.deployment.flower.fork_client import FORK_SERVER
from hanse.deployment.flower.home import FlowerHome
from hanse.deployment.flower.launcher import SERVER
from hanse.deployment.flower.processes import ManagedProcess, await_port, free_port
from hanse.security import kits
from hanse.security.kits import ServerKit
from patience import patience

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
        return {"type": "http.request"}

    scope = {"type": kind, "path": path, "client": client, "server": SERVES, "headers": []}
    asyncio.run(fleet_only(app, lambda headers: True, 0)(scope, receive, send))
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


def _sent(
    parts: list[bytes], told: int | None = None, known: bool = True, gone: bool = False
) -> tuple[int, int, bytes]:
    """What comes of a body in parts, at most 100 bytes: a status, the parts read, what got in."""
    got, status, left = b"", 0, list(parts)
    guarded = fleet_only(_reading(got_in := []), lambda headers: known, 100)

    async def receive() -> dict[str, Any]:
        if gone and not left[1:]:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [] if told is None else [(b"content-length", str(told).encode())]
    scope = {"type": "http", "path": "/v1/fleet/x", "client": ELSEWHERE, "server": SERVES}
    asyncio.run(guarded({**scope, "headers": headers}, receive, send))
    return status, len(parts) - len(left), got.join(got_in)


def _reading(into: list[bytes]) -> App:
    """An app that reads a body to its end, as Flower's does."""

    async def app(scope: object, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            into.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200})

    return app


def test_a_body_is_read_when_it_is_known_whose_it_is_and_no_further_than_is_due() -> None:
    part = bytes(60)
    assert _sent([part, b"end"]) == (200, 2, part + b"end")
    assert _sent([part] * 9) == (413, 2, b"")
    assert _sent([part] * 9, told=540) == (413, 0, b"")
    assert _sent([part] * 9, known=False) == (401, 0, b"")
    assert _sent([part, part, part], gone=True) == (413, 2, b"")
    assert _sent([part, part], gone=True) == (0, 1, b""), "half of a body is none"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> ServerKit:
    return kits.init(tmp_path_factory.mktemp("hub") / "kit", [], 30)


@pytest.fixture(params=["--insecure"])
def superlink(request: pytest.FixtureRequest, tmp_path: Path, kit: ServerKit) -> Iterator[int]:
    """The port of a SuperLink, which nodes may enter with keys that it knows, or freely."""
    port = free_port()
    home = FlowerHome.prepare(tmp_path / "flower", SERVER)
    words = [SERVER, "--host", "127.0.0.1", "--port", str(port)]
    if request.param == "--insecure":
        words += ["--insecure"]
    else:
        names = ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile")
        for name, file in zip(names, kit.certificates, strict=True):
            words += [name, str(file)]
        words += ["--enable-supernode-auth"]
    child = ManagedProcess(
        home, words, {FORK_SERVER: str(tmp_path / "fork-server"), "HANSE_SOCKET": ""}
    )
    child.start()
    try:
        await_port(child, "127.0.0.1", port)
        yield port
    finally:
        child.stop()


def test_a_superlink_lets_others_start_no_run_and_register_no_node(superlink: int) -> None:
    """A proxy here says for whom it asks, and is believed; this is how others come in a test."""

    def asked(path: str, **headers: str) -> int:
        line = http.client.HTTPConnection("127.0.0.1", superlink, timeout=patience(60))
        line.request("POST", path, body=json.dumps({}), headers=headers)
        with closing(line), line.getresponse() as answer:
            return answer.status

    other = {"X-Forwarded-For": ELSEWHERE[0]}
    for name in ("start-run", "register-node", "stop-run", "list-runs"):
        path = f"/v1/control/{name}"
        assert asked(path) not in (403, 404), "it answers this machine, whatever it says"
        assert asked(path, **other) == 403
    assert asked("/v1/fleet/pull-messages", **other) not in (403, 404)


@pytest.mark.parametrize("superlink", ["with keys"], indirect=True)
def test_a_superlink_with_keys_takes_nothing_that_is_not_signed(
    superlink: int, kit: ServerKit, tmp_path: Path
) -> None:
    trusting = ssl.create_default_context(cafile=kit.certificates[0])
    for name in ("register-node", "activate-node", "pull-messages", "push-messages", "get-fab"):
        line = http.client.HTTPSConnection(
            "127.0.0.1", superlink, timeout=patience(60), context=trusting
        )
        line.request("POST", f"/v1/fleet/{name}", b"", {"Content-Type": "application/protobuf"})
        with closing(line), line.getresponse() as answer:
            assert answer.status == 401, name
    plain = http.client.HTTPConnection("127.0.0.1", superlink, timeout=patience(60))
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("POST", "/v1/fleet/pull-messages", body=b"")
        plain.getresponse()
    plain.close()
    another = kits.init(tmp_path / "another", [], 30)
    for context in (ssl.create_default_context(cafile=another.certificates[0]), _old()):
        with (
            socket.create_connection(("127.0.0.1", superlink), timeout=patience(60)) as bare,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(bare, server_hostname="127.0.0.1")


def _old() -> ssl.SSLContext:
    """A context that speaks TLS 1.1 at most, and would on its own side."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    return old
