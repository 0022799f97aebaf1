"""What a browser is shown and may ask: foreign text stays text, and no page elsewhere acts here."""

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from folders import baselines_folder, divided, finished
from hanse.deployment.flower.fleet_only import fleet_only
from hanse.errors import UserError
from hanse.observability.metrics_endpoint import Status, shown
from hanse.reports.baselines.page import write_baselines_report
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import write_comparison
from hanse.reports.run.page import write_report
from patience import patience
from real_federation import free_port

EVIL = (
    """'\"><img src=x onerror=alert(1)></title></style><script>alert(1)</script>[x](javascript:y)"""
)
PROBE = "zzprobe"


class Actions(HTMLParser):
    """What a page would do or load by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "iframe", "object", "embed", "form", "base", "link"):
            self.found.append(tag)
        for name, value in attrs:
            bad = (value or "").lower().replace("\t", "").strip()
            if name.startswith("on") or bad.startswith(("javascript:", "data:", "http", "//")):
                self.found.append(f"{tag} {name}={value}")

    handle_startendtag = handle_starttag


def _laced(value: Any, key: str) -> Any:
    """A record in which all text of one key holds a payload; `key` itself, if it is "keys"."""
    if isinstance(value, dict):
        laced = {}
        for name, own in value.items():
            hit = name == key and isinstance(own, str)
            shown = f"{name}{PROBE}{EVIL}" if key == "keys" else name
            laced[shown] = f"{own}{PROBE}{EVIL}" if hit else _laced(own, key)
        return laced
    if isinstance(value, list):
        texts = [f"{one}{PROBE}{EVIL}" if key == "lists" else one for one in value]
        return [
            text if isinstance(one, str) else _laced(one, key)
            for one, text in zip(value, texts, strict=True)
        ]
    return value


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (name for name, own in value.items() if isinstance(own, str))
        value = [*value.values()]
    if isinstance(value, list):
        for own in value:
            yield from _keys(own)


def _read(file: Path) -> Any:
    text = file.read_text()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return yaml.safe_load(text)


def _write(file: Path, value: Any) -> None:
    lines = map(json.dumps, value if file.suffix == ".jsonl" else [value])
    file.write_text("".join(f"{line}\n" for line in lines))


def _run(home: Path) -> Path:
    answers = {r: [{"prompt": "2?", "answer": "four", "said": "five"}] for r in (0, 2)}
    run = finished(home, [0.0, 1.0], [1.0, 1.0], samples=answers)
    divided(run, {"a": {"good": 3, "bad": 2}, "b": {"good": 1}}, ["good", "bad"])
    return run


def _page_of_run(home: Path) -> tuple[Path, Callable[[], Path]]:
    run = _run(home / "run")
    return run, lambda: write_report(run)


def _page_of_two(home: Path) -> tuple[Path, Callable[[], Path]]:
    run, other = _run(home / "run"), finished(home / "other", [0.0, 0.0], [1.0, 0.0])
    return run, lambda: write_comparison(compare([run, other]), home / "compare.html")


def _page_of_ladder(home: Path) -> tuple[Path, Callable[[], Path]]:
    values = {"alone": {"a": [0.5, 0.6]}, "federated": {"": [0.8, 0.9]}}
    folder = baselines_folder(home / "baselines", values)
    return folder, lambda: write_baselines_report(folder)


@pytest.mark.parametrize("make", [_page_of_run, _page_of_two, _page_of_ladder])
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_whatever_text_a_run_holds_a_page_shows_it_as_text(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Callable[[], Path]]]
) -> None:
    """Names, errors, metrics, labels, answers: each text of each file in turn."""
    folder, page = make(tmp_path)
    written, shown = 0, 0
    for file in (one for one in folder.rglob("*") if one.suffix in (".json", ".jsonl", ".yaml")):
        former = file.read_text()
        for key in {*_keys(_read(file)), "keys", "lists"}:
            _write(file, _laced(_read(file), key))
            try:
                text = page().read_text()
            except UserError:  # it is no run any more
                continue
            finally:
                file.write_text(former)
            assert Actions(text).found == [], (file, key)
            written, shown = written + 1, shown + (PROBE in text)
    assert written > 5 and shown >= 2


def test_status_answers_no_page_from_elsewhere() -> None:
    """A name that was made to lead to this machine is not that of this machine."""
    asked = []

    def status() -> Status:
        asked.append(1)
        return Status({"round": 3}, True, [])

    port = free_port()

    def ask(method: str, path: str, host: str) -> tuple[int, bytes, str | None]:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=patience(60))
        with closing(line):
            line.request(method, path, headers={"Host": host})
            with line.getresponse() as answer:
                kind = answer.getheader("X-Content-Type-Options")
                return answer.status, answer.read(), kind

    with shown(port, status):
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[::1]x"):
            for path in ("/healthz", "/metrics"):
                assert ask("GET", path, host)[0] == 403
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
            assert ask(method, "/healthz", f"127.0.0.1:{port}")[0] == 501
        assert asked == []
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost"):
            assert ask("GET", "/healthz", host) == (200, b'{"round": 3}', "nosniff")


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/fleet/pull-messages", "/docs"])
@pytest.mark.parametrize("header", [(b"origin", b"null"), (b"sec-fetch-site", b"same-origin")])
def test_a_superlink_answers_no_browser(path: str, header: tuple[bytes, bytes]) -> None:
    """A page that somebody looks at on the server's machine asks from there."""
    said: list[Any] = []

    async def app(*_: object) -> None:
        said.append({"status": "the app"})

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    here = ("127.0.0.1", 1)
    scope = {"type": "http", "path": path, "client": here, "server": here}
    guarded = fleet_only(app, lambda headers: True, 0)
    asyncio.run(guarded({**scope, "headers": []}, receive, send))
    assert said.pop() == {"status": "the app"}, "without these headers it is let in"
    asyncio.run(guarded({**scope, "headers": [header]}, receive, send))
    assert said[0]["status"] == 403
