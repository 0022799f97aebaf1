"""What machines are told: health, metrics, log lines."""

import json
import logging
import socket
import urllib.error
import urllib.request

import pytest

from hanse.errors import UserError
from hanse.observability.json_logs import JsonLines
from hanse.observability.metrics_endpoint import Figure, Status, metrics, shown
from hanse.observability.steps import Activity, Training, Work, as_json
from patience import patience
from real_federation import free_port

FIGURES = [
    Figure("hanse_round", "The round", 3, {}),
    Figure("hanse_silo_connected", "There", 1, {"silo": 'a"\n'}),
    Figure("hanse_silo_connected", "There", 0, {"silo": "b"}),
    Figure("hanse_bytes", "Bytes", 12, {"direction": "up"}, counter=True),
]


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}{path}", timeout=patience(60)
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_in_prometheus_text_format() -> None:
    lines = metrics(FIGURES).decode().splitlines()
    assert "hanse_round 3.0" in lines
    assert 'hanse_silo_connected{silo="a\\"\\n"} 1.0' in lines
    assert 'hanse_bytes_total{direction="up"} 12.0' in lines
    assert "# TYPE hanse_bytes_total counter" in lines


@pytest.mark.parametrize(("well", "code"), [(True, 200), (False, 503)])
def test_health_is_told_on_loopback_alone(well: bool, code: int) -> None:
    port = free_port()
    with shown(port, lambda: Status({"round": 3}, well, FIGURES)):
        assert _get(port, "/healthz") == (code, '{"round": 3}')
        assert _get(port, "/metrics")[1] == metrics(FIGURES).decode()
        assert _get(port, "/etc/passwd")[0] == 404
        with pytest.raises(UserError, match="choose another --status-port"), shown(port, Status):  # type: ignore[arg-type]
            pass
    with socket.socket() as trial, pytest.raises(ConnectionRefusedError):
        trial.connect(("127.0.0.1", port))


def test_log_line_is_json_with_run_round_and_silo() -> None:
    about = {"run": "r", "round": 2}
    record = logging.makeLogRecord(
        {"msg": "%s is\nthere", "args": ("a",), "levelname": "INFO", "silo": "a", "round": 3}
    )
    line = JsonLines(lambda: about).format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert {**found, "time": ""} == {
        **{"time": "", "level": "info", "run": "r", "round": 3, "silo": "a"},
        "message": "a is\nthere",
    }


def test_progress_in_a_log_line_is_fields_beside_the_text() -> None:
    step = Training(("a", "b"), 3, 9, 0.5, 99.0)
    record = logging.makeLogRecord({"msg": "… training 2 clients", "step": step})
    line = json.loads(JsonLines(dict).format(record))
    assert line["progress"] == {
        **{"step": "Training", "clients": ["a", "b"], "done": 3, "total": 9},
        **{"loss": 0.5, "tokens_per_second": 99.0},
    }
    assert as_json(Work(Activity.SCORING, "test"))["activity"] == "scoring"
