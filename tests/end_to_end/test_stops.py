"""Commands that are stopped, or whose output goes nowhere: a sentence, and a sane exit code."""

import json
import os
import pty
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patience import patience
from real_federation import free_port

pytestmark = pytest.mark.end_to_end

STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def _stopped(
    words: list[str | Path],
    home: Path,
    number: int,
    begun: Callable[[str], bool],
    times: int = 1,
) -> tuple[int, str]:
    """The exit code of a command that gets a signal once it has begun, and what it said."""
    said = home / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(words, cwd=home, stdout=file, stderr=file)
    try:
        _await(process, said, begun)
        process.send_signal(number)
        if times == 2:
            again = "press Ctrl-C again"
            _await(process, said, lambda text: again in text or process.poll() is not None)
            process.send_signal(number)
        code = process.wait(patience(300))
    finally:
        process.kill()
    return code, said.read_text(errors="replace")


def _await(process: subprocess.Popen[bytes], said: Path, seen: Callable[[str], bool]) -> None:
    """Wait until what a process has said, or has made, is as it must be."""
    end = time.monotonic() + patience(300)
    while not seen(said.read_text(errors="replace")):
        assert process.poll() is None and time.monotonic() < end, said.read_text()
        time.sleep(0.05)


def _sentence(said: str) -> str:
    [line] = [line for line in said.splitlines() if line.startswith("hanse: ")]
    assert "Traceback" not in said, said
    return line


def _healthy(port: int) -> Any:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/healthz", timeout=patience(30)
        ) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


@pytest.mark.parametrize(("number", "code"), STOPS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("command", ["check", "run", "baselines"])
def test_a_command_that_is_stopped_says_how_to_go_on(
    hanse: Path, experiment_file: Path, tmp_path: Path, command: str, number: int, code: int
) -> None:
    text = experiment_file.read_text().replace("max_steps: 3", "max_steps: 100000")
    experiment_file.write_text(text)
    words = [hanse, command, experiment_file]
    words += ["evaluation.test=false", "rounds=9"] if command != "baselines" else ["--seeds", "0"]

    def begun(said: str) -> bool:
        return bool(said) and (command == "check" or (tmp_path / "run").exists())

    # A run ends its round at the first Ctrl-C, and here a round takes minutes.
    times = 2 if number == signal.SIGINT and command != "check" else 1
    got, said = _stopped(words, tmp_path, number, begun, times)
    assert got == code, said
    assert re.search("same command begins again|hanse resume .*run|begin again", _sentence(said))


@pytest.mark.parametrize(("number", "code"), STOPS, ids=["SIGINT", "SIGTERM"])
def test_a_server_that_waits_stops_and_is_healthy_from_the_start(
    hanse: Path, experiment_file: Path, tmp_path: Path, number: int, code: int
) -> None:
    status, port = free_port(), free_port()
    seen: list[Any] = []

    def begun(said: str) -> bool:
        found = _healthy(status)
        seen.extend([found] if found else [])
        return bool(found) and not found["starting"]

    words = [hanse, "server", experiment_file, "clients_per_pass=off", "--port", str(port)]
    got, said = _stopped([*words, "--status-port", str(status)], tmp_path, number, begun)
    assert got == code, said
    assert "go on with `the same command`" in said or "begin again" in _sentence(said)
    assert seen[0]["starting"] and seen[0]["silos"]["silo-1"] == "never seen"
    assert seen[-1]["waiting_for"] == ["silo-1", "silo-2", "silo-3"]


@pytest.mark.parametrize(("number", "code"), STOPS, ids=["SIGINT", "SIGTERM"])
def test_a_silo_that_is_stopped_says_what_it_keeps(
    hanse: Path, review_file: Path, tmp_path: Path, number: int, code: int
) -> None:
    (tmp_path / "silo.yaml").write_text(
        f"name: silo-1\nserver: 127.0.0.1:{free_port()}\ndata: {{path: {review_file}}}\n"
        "state: state\n"
    )
    status = free_port()

    def begun(said: str) -> bool:
        found = _healthy(status)
        return bool(found) and found["node"]

    words = [hanse, "join", "silo.yaml", "--status-port", str(status)]
    got, said = _stopped(words, tmp_path, number, begun)
    assert got == code, said
    assert "what silo-1 remembers is in" in _sentence(said)


def test_output_that_nobody_reads_or_nothing_takes(hanse: Path, tmp_path: Path) -> None:
    def run(line: str, **more: str) -> tuple[int, str, str]:
        words = ["bash", "-o", "pipefail", "-c", line.replace("hanse", str(hanse))]
        done = subprocess.run(words, cwd=tmp_path, env={**os.environ, **more}, capture_output=True)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    first = run("hanse parts")[1].partition("\n")[0]
    assert run("hanse parts | head -1") == (141, f"{first}\n", "")
    for line in ("hanse parts > /dev/full", "hanse --help > /dev/full"):
        code, _, err = run(line)
        assert code == 2 and "could not be written (No space left" in _sentence(err)
    for columns in ("0", "1", "-3", "x"):
        for line in ("hanse parts", "hanse --help", "hanse run --help"):
            code, out, err = run(line, COLUMNS=columns)
            assert code == 0 and len(out) > 300 and "Traceback" not in err
    for encoding in ("ascii", "latin-1"):
        code, out, err = run("hanse parts; hanse --help", PYTHONIOENCODING=encoding)
        assert code == 0 and "algorithms" in out, err


@pytest.mark.parametrize("command", ["run", "resume", "evaluate", "chat", "report", "join"])
def test_a_name_of_three_hundred_letters(hanse: Path, tmp_path: Path, command: str) -> None:
    done = subprocess.run([hanse, command, "n" * 300], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "File name too long" in _sentence(done.stderr)


def test_rows_with_escape_codes_leave_a_terminal_alone(
    hanse: Path, experiment_file: Path, tmp_path: Path
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    rows = [
        {"text": f"{evil} text {number}", "label": f"{evil}\nhanse: done" if number % 2 else "b"}
        for number in range(90)
    ]
    (tmp_path / "evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [hanse, "check", experiment_file, "data.path=evil.jsonl", "data.labels={}"]
    main, side = pty.openpty()
    process = subprocess.Popen(
        [word for word in words if word != "data.labels={}"], cwd=tmp_path, stdout=side, stderr=side
    )
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 2**16)
        except OSError:  # the terminal is left
            break
        shown += part
    assert process.wait(patience(300)) == 0, shown
    text = shown.decode()
    assert "owned" in text and "\x1b]0;owned" not in text and "\x1b[2J" not in text
    assert "\x9b" not in text and "\nhanse: done" not in text.replace("\r", "")
