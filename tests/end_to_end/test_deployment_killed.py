"""kill -9 of the parts of a federation: it goes on, and ends as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import pytest

from federation import (
    ALONE,
    SILOS,
    Federation,
    digest,
    federation,
    left_of,
    simulated,
    with_memory,
)

pytestmark = pytest.mark.end_to_end


def _gone(folder: Path, seconds: float = 5.0) -> None:
    """All of Flower's processes of a command end, however it was killed."""
    end = time.monotonic() + seconds
    while left := left_of(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def _kill_flower(made: Federation, home: Path, program: str) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"FLWR_HOME={home}".encode() in environment and program.encode() in words:
            os.kill(int(process.name), signal.SIGKILL)
            return
    pytest.fail(f"there is no {program}: {left_of(home)}")


@pytest.mark.timeout(600)
def test_killed_parts_come_back_and_the_adapter_is_the_same(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    words = with_memory("rounds=6")
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.server()
        for name in SILOS:
            made.silo(name)
        made.hears("server", "round 1: validation")
        made.kill("server")
        _gone(made.run / "flower")
        made.server()
        made.hears("server", "round 2: validation")
        made.kill("silo-2")
        _gone(tmp_path / "silo-2" / "flower")
        made.silo("silo-2")
        made.hears("server", "round 4: validation")
        _kill_flower(made, made.run / "flower", "flower-superlink")
        made.done(400)
        assert digest(made.run) == expected
        assert "a new one is started" in made.said("server")
