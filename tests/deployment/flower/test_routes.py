"""Every route of a SuperLink that runs, asked with every sort of credential; and its memory.

The SuperLink is started with the words that `hanse server` starts it with. A proxy on its machine
says for whom it asks, and is believed; this is how other machines come in a test.
"""

import http.client
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.routing import iter_route_contexts
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    RegisterNodeRequest,
)
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.main import create_app
from google.protobuf.message import Message

from hanse.deployment.flower.fleet_only import REFUSALS
from hanse.deployment.flower.launcher import SERVER
from hanse.deployment.flower.processes import await_port, free_port
from hanse.deployment.flower.superlink import FlowerLink, Tls
from hanse.deployment.sockets import listening
from hanse.security import kits
from patience import patience
from real_federation import flower_programs

ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}
MOST = 2**20  # bytes that a node may send to this SuperLink
REFUSED = (401, 403, 404)

Headers = dict[str, str]


def _routes() -> list[tuple[str, str]]:
    """Method and path of all that a SuperLink's app answers, as its own router has them."""
    found = []
    for context in iter_route_contexts(create_app().routes):
        methods = set(context.route.methods or ())  # type: ignore[attr-defined]
        found += [(method, str(context.path)) for method in sorted(methods)]
    return found


ROUTES = _routes()


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _load(file: Path) -> Any:
    read = serialization.load_pem_private_key
    return (serialization.load_ssh_private_key if file.suffix == ".ssh" else read)(
        file.read_bytes(), None
    )


def _signed(key: Any, ago: float = 0.0, by: Any = None) -> Headers:
    """What a node sends along to be known, signed so many seconds ago."""
    time = (now() - timedelta(seconds=ago)).isoformat()
    return {
        "flwr-public-key": b64encode(public_key_to_bytes(key.public_key())).decode(),
        "flwr-timestamp": time,
        "flwr-signature": b64encode(sign_message(by or key, time.encode())).decode(),
    }


@dataclass
class SuperLink:
    """One that runs, and knows the nodes of two silos; a third was revoked."""

    port: int
    home: Path
    kit: Path
    log: Path
    context: ssl.SSLContext
    keys: dict[str, Any]
    nodes: dict[str, int]

    def ask(self, method: str, path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        line = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=patience(60), context=self.context
        )
        with closing(line):
            kind = {"Content-Type": "application/protobuf"}
            line.request(method, path, body, {**kind, **headers})
            with line.getresponse() as answer:
                return answer.status, answer.read()

    def post(self, path: str, message: Message, more: Headers | None = None) -> tuple[int, bytes]:
        return self.ask("POST", path, message.SerializeToString(), more or {})

    def listed(self) -> dict[bytes, str]:
        """Whom it knows, and how they stand."""
        _, body = self.post("/v1/control/list-nodes", ListNodesRequest())
        nodes = ListNodesResponse.FromString(body).nodes_info
        return {each.public_key: each.status for each in nodes}

    def memory(self) -> int:
        """The most bytes that its process has held."""
        [process] = [
            process for process, name in flower_programs(self.home).items() if name == SERVER[:15]
        ]
        status = Path(f"/proc/{process}/status").read_text()
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    home = tmp_path_factory.mktemp("link")
    kit = home / "kit"
    kits.init(kit, [], 30)
    for name in ("a", "b", "c"):
        kits.enrol(kit, kits.make_keys(home / name, name))
    kits.revoke(kit, "c")
    hub = kits.open_server(kit)
    keys = {name: _load(home / name / f"{name}.ssh") for name in ("a", "b", "c")}
    with listening() as listener:
        link = FlowerLink(
            home / "flower",
            "127.0.0.1",
            port := free_port(),
            listener,
            Tls(*hub.certificates),
            [public.node for public in hub.silos.values()],
            MOST,
        )
        child = link._superlink
        child.start()
        try:
            await_port(child, "127.0.0.1", port)
            link._write_config()
            link._register_nodes()
            context = ssl.create_default_context(cafile=hub.certificates[0])
            made = SuperLink(port, home / "flower", kit, child.log, context, keys, {})
            for name in ("a", "b"):
                public = public_key_to_bytes(keys[name].public_key())
                request = ActivateNodeRequest(public_key=public, heartbeat_interval=600)
                code, body = made.post("/v1/fleet/activate-node", request, _signed(keys[name]))
                assert code == 200, body
                made.nodes[name] = ActivateNodeResponse.FromString(body).node_id
            yield made
        finally:
            link.stop()


def _body(method: str, path: str, node: int, key: Any) -> bytes:
    """What may be sent to a route: in the name of a node, with a key."""
    kind = PROTOBUF_REQUEST_TYPES.get((method, path))
    if kind is None:
        return b""
    message: Any = kind()
    fields = {field.name for field in kind.DESCRIPTOR.fields}
    if "node" in fields:
        message.node.node_id = node
    if "node_id" in fields:
        message.node_id = node
    if "public_key" in fields:
        message.public_key = public_key_to_bytes(key.public_key())
    if "heartbeat_interval" in fields:
        message.heartbeat_interval = 600
    return bytes(message.SerializeToString())


Credential = Callable[[SuperLink], Headers]

BAD: dict[str, Credential] = {
    "none": lambda link: {},
    "no key": lambda link: {**_signed(link.keys["a"]), "flwr-public-key": "????"},
    "unknown key": lambda link: _signed(_key()),
    "signed by another": lambda link: _signed(link.keys["a"], by=_key()),
    "expired": lambda link: _signed(link.keys["a"], ago=3600),
    "in the future": lambda link: _signed(link.keys["a"], ago=-3600),
    "revoked": lambda link: _signed(link.keys["c"]),
    "the server's own": lambda link: _signed(_load(link.kit / "tls.key")),
    "another silo": lambda link: _signed(link.keys["b"]),
}


@pytest.mark.parametrize("credential", BAD)
def test_no_route_takes_others_without_the_right_key(superlink: SuperLink, credential: str) -> None:
    before = superlink.listed()
    answers = {}
    for method, path in ROUTES:
        body = _body(method, path, superlink.nodes["a"], superlink.keys["a"])
        headers = BAD[credential](superlink)
        for where in (ELSEWHERE, {}) if path.startswith("/v1/fleet/") else (ELSEWHERE,):
            code, _ = superlink.ask(method, path, body, {**headers, **where})
            answers[method, path, bool(where)] = code
    assert {asked: code for asked, code in answers.items() if code not in REFUSED} == {}
    assert superlink.listed() == before


def test_a_known_node_reaches_the_fleet_api_and_nothing_else(superlink: SuperLink) -> None:
    for method, path in ROUTES:
        if path.endswith("activate-node") or "unregister" in path:
            continue  # which would end what other tests need
        body = _body(method, path, superlink.nodes["a"], superlink.keys["a"])
        code, said = superlink.ask(method, path, body, _signed(superlink.keys["a"]) | ELSEWHERE)
        if not path.startswith("/v1/fleet/"):
            assert code == 403, path
        elif path.endswith("register-node"):  # with keys nobody does it alone
            assert code == 412 and b"authentication is enabled" in said
        else:  # a run or an app that there is not is none of its own
            assert code != 401 and said != REFUSALS[403], (path, said)


def test_the_routes_are_those_of_the_superlink_that_runs(superlink: SuperLink) -> None:
    """Had it others than its router says, they would be asked by no test."""
    _, text = superlink.ask("GET", "/openapi.json", b"", {})
    shown = set(re.findall(r'"(/[^"{}]*)":\{"(?:get|post)"', text.decode()))
    assert len(shown) > 60 and shown <= {path for _, path in ROUTES}
    for path in ("/nowhere", "/v1/fleet/", "/v1/fleet/nothing", "/v1/fleet/../control/start-run"):
        for headers in ({}, _signed(superlink.keys["a"])):
            code, _ = superlink.ask("POST", path, b"", headers | ELSEWHERE)
            assert code in REFUSED, path


def test_fifty_unknown_nodes_change_nothing_and_are_in_the_log(superlink: SuperLink) -> None:
    before, said = superlink.listed(), superlink.log.read_text().count('" 401')
    for _ in range(50):
        key = _key()
        public = public_key_to_bytes(key.public_key())
        for path, message in (
            ("register-node", RegisterNodeFleetRequest(public_key=public)),
            ("activate-node", ActivateNodeRequest(public_key=public, heartbeat_interval=30)),
        ):
            code, _ = superlink.post(f"/v1/fleet/{path}", message, _signed(key) | ELSEWHERE)
            assert code == 401
    assert superlink.listed() == before
    assert superlink.log.read_text().count('" 401') == said + 100


def test_no_silo_enters_twice(superlink: SuperLink) -> None:
    """A second registration of its key, and a second node with it, while the first is there."""
    before = superlink.listed()
    key = superlink.keys["a"]
    public = public_key_to_bytes(key.public_key())
    again = superlink.post("/v1/control/register-node", RegisterNodeRequest(public_key=public))
    assert 400 <= again[0] < 500
    for path, message in (
        ("register-node", RegisterNodeFleetRequest(public_key=public)),
        ("activate-node", ActivateNodeRequest(public_key=public, heartbeat_interval=30)),
    ):
        code, said = superlink.post(f"/v1/fleet/{path}", message, _signed(key))
        assert 400 <= code < 500, said
    assert superlink.listed() == before


def _pour(superlink: SuperLink, headers: Headers, size: int, chunked: bool) -> bytes:
    """What is answered to a body of so many bytes, as far as the SuperLink takes it."""
    told = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    lines = ["POST /v1/fleet/push-object HTTP/1.1", "Host: x", told]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    part = bytes(2**20)
    if chunked:
        part = b"100000\r\n" + part + b"\r\n"
    with (
        socket.create_connection(("127.0.0.1", superlink.port), timeout=patience(60)) as bare,
        superlink.context.wrap_socket(bare, server_hostname="127.0.0.1") as line,
    ):
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        with suppress(OSError):  # it hangs up
            for _ in range(size // 2**20):
                line.sendall(part)
        with suppress(OSError):
            return line.recv(200)
    return b""


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "chunked"])
@pytest.mark.parametrize("who", ["nobody", "a"])
def test_what_is_too_long_is_not_read(superlink: SuperLink, who: str, chunked: bool) -> None:
    """Flower reads all of it before it asks for a key: 600 MiB took 1.2 GiB."""
    headers = _signed(superlink.keys["a"]) if who == "a" else {}
    kind = {"Content-Type": "application/protobuf"}
    before = superlink.memory()
    answer = _pour(superlink, {**headers, **kind}, 600 * 2**20, chunked)
    assert superlink.memory() - before < 32 * 2**20
    assert answer == b"" or answer.split()[1] == (b"413" if who == "a" else b"401")
    lines = superlink.log.read_text().splitlines()
    assert any(("413" if who == "a" else "401") in line for line in lines[-3:])


def test_a_node_may_send_what_is_due(superlink: SuperLink) -> None:
    request = PullMessagesRequest().SerializeToString()
    for size, codes in ((MOST, (200, 400, 401)), (MOST + 1, (413,))):
        code = 0
        with suppress(OSError):
            code, _ = superlink.ask(
                "POST",
                "/v1/fleet/pull-messages",
                request + bytes(size - len(request)),
                _signed(superlink.keys["a"]) | ELSEWHERE,
            )
        assert code in (*codes, 0) and (code or size > MOST)
