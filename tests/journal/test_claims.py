"""A run's folder belongs to one process, however many begin at once."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.journal import claims
from hanse.journal.claims import TakenError
from hanse.journal.run_folder import Journal

TOGETHER = 6  # processes that begin at once


# Begins a run as `hanse run` does: its model takes a while to load, and only then it writes.
BEGIN = """
import os, sys, time
from pathlib import Path
from hanse import atomic_files as storage
from hanse.journal import claims
from hanse.errors import UserError
home, numbered = Path(sys.argv[1]), sys.argv[2] == "numbered"
print("ready", flush=True)
sys.stdin.readline()
try:
    with claims.reserved(lambda number: home / f"run-{number if numbered else 1}") as claim:
        time.sleep(0.5)
        storage.write(claim.folder / "experiment.yaml", f"name: {os.getpid()}".encode())
    time.sleep(0.5)  # it is at work, and somebody else begins
    print(claim.folder.name)
except UserError as error:
    print(error)
"""


def together(home: Path, how: str) -> list[str]:
    """What processes say that begin at the same moment."""
    command = [sys.executable, "-c", BEGIN, str(home), how]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(TOGETHER)
        ]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sorted(process.communicate()[0].strip() for process in processes)


def test_each_of_many_that_begin_at_once_has_a_folder_of_its_own(tmp_path: Path) -> None:
    found = together(tmp_path, "numbered")
    assert found == [f"run-{number}" for number in range(1, TOGETHER + 1)]
    written = {(tmp_path / name / "experiment.yaml").read_text() for name in found}
    assert len(written) == TOGETHER, "nobody has written into another one's"


def test_a_folder_that_was_asked_for_is_one_runs(tmp_path: Path) -> None:
    said = together(tmp_path, "as asked")
    assert said.count("run-1") == 1
    refused = [text for text in said if text != "run-1"]
    assert all("exists; choose another" in t or "another process is" in t for t in refused)


def test_a_run_that_fails_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    for error in (UserError("no such model"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            claims.reserved(lambda number: tmp_path / "runs" / "a") as claim,
        ):
            assert claim.folder.is_dir()
            raise error
        assert not (tmp_path / "runs" / "a").exists()


def test_what_is_there_is_never_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Journal.create(run, "name: mine\n").close()
    with pytest.raises(TakenError, match=r"exists; choose another .* or continue that run"):
        claims.reserve(run)
    other = tmp_path / "notes"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(TakenError, match="exists; choose another output_dir"):
        claims.reserve(other)
    (tmp_path / "file").touch()
    with pytest.raises(TakenError):
        claims.reserve(tmp_path / "file")
    assert [path.name for path in other.iterdir()] == ["notes.txt"], "not even a lock"
    with pytest.raises(ZeroDivisionError), claims.reserved(lambda number: tmp_path / "b") as claim:
        (claim.folder / "somebody's").touch()
        raise ZeroDivisionError
    assert (tmp_path / "b" / "somebody's").exists()


HELD = """
import sys, time
from pathlib import Path
from hanse.journal import claims
with claims.reserved(lambda number: Path(sys.argv[1])):
    print("reserved", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_a_killed_process_reserved_is_free_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", HELD, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"reserved\n"
        with pytest.raises(TakenError, match="another process is working on"):
            claims.reserve(run)
        process.send_signal(signal.SIGKILL)
    (run / f".experiment.yaml.{process.pid}.part").write_text("na")
    Journal.create(run, "").close()
    assert sorted(os.listdir(run)) == [".lock", "experiment.yaml"]
