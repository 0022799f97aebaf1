"""The state of a server or a silo for other programs: /healthz and /metrics, on loopback.

Nothing is counted here: at each request the state is read from the journal, the roster of silos and
the silo's worker. /metrics has Prometheus' text format.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hanse.errors import UserError, refuse_missing

TEXT = "text/plain; version=0.0.4; charset=utf-8"
# Host names that requests may have. A web page from elsewhere whose name was made to lead to this
# machine (DNS rebinding) sends its own name.
HERE = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Figure:
    """One number. labels: such as the silo's name. counter: true if the number only rises."""

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str]
    counter: bool = False


@dataclass(frozen=True)
class Status:
    """The facts for /healthz, the figures for /metrics; well: true if nothing is wrong."""

    facts: Mapping[str, Any]
    well: bool
    figures: list[Figure]


@contextmanager
def shown(port: int | None, status: Callable[[], Status]) -> Iterator[None]:
    """Serve the status at a port of this machine while the block lasts; None: do nothing."""
    if port is None:
        yield
        return
    refuse_missing("--status-port", "flower", ["prometheus_client"], "leave it out")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(status))
    except OSError as error:
        raise UserError(
            f"127.0.0.1:{port} cannot be listened at ({error.strerror}); choose another "
            "--status-port."
        ) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def metrics(figures: list[Figure]) -> bytes:
    """The figures in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

    families: dict[str, Metric] = {}
    for figure in figures:
        if figure.name not in families:
            kind = CounterMetricFamily if figure.counter else GaugeMetricFamily
            families[figure.name] = kind(figure.name, figure.meaning, labels=[*figure.labels])
        families[figure.name].add_metric([*figure.labels.values()], figure.value)  # type: ignore[attr-defined]

    class Collector:
        def collect(self) -> Iterator[Metric]:
            yield from families.values()

    registry = CollectorRegistry()
    registry.register(Collector())
    return generate_latest(registry)


def _handler(status: Callable[[], Status]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", HERE[0]).partition(":")[0] not in HERE:
                self._send(403, "text/plain", f"this answers {' and '.join(HERE)} alone\n")
            elif self.path == "/healthz":
                now = status()
                self._send(200 if now.well else 503, "application/json", json.dumps(now.facts))
            elif self.path == "/metrics":
                self._send(200, TEXT, metrics(status().figures).decode())
            else:
                self._send(404, "text/plain", "there are /healthz and /metrics\n")

        def _send(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing, since requests come every few seconds."""

    return Handler
