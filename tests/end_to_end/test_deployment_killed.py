"""kill -9 of the parts of a federation: it goes on, and ends as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import pytest

from patience import patience
from real_federation import (
    ALONE,
    PATIENCE,
    SILOS,
    Federation,
    digest,
    federation,
    flower_of,
    flower_programs,
    simulated,
    with_memory,
)

pytestmark = pytest.mark.end_to_end


def _gone(folder: Path) -> None:
    """All of Flower's processes of a command end, however it was killed."""
    end = time.monotonic() + patience(60)
    while left := flower_of(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def _kill_flower(home: Path, program: str) -> None:
    names = flower_programs(home)
    processes = [process for process, name in names.items() if name == program[:15]]
    assert processes, f"there is no {program}: {names}"
    os.kill(processes[0], signal.SIGKILL)


def _kill_in_training(made: Federation, name: str, round: int) -> None:
    """Once a silo has noted how far it is in the training of a round."""
    end = time.monotonic() + PATIENCE
    while not list(made.home.glob(f"{name}/runs/*/{name}/training/round-{round:05d}-*.checkpoint")):
        assert time.monotonic() < end, made.said(name)
        time.sleep(0.01)
    made.kill(name)


def test_killed_parts_come_back_and_the_adapter_is_the_same(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    words = with_memory("rounds=6", "train.max_steps=40")
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.know_each_other(SILOS)
        made.server()
        for name in SILOS:
            made.silo(name, checkpoint_seconds=0)
        made.hears("server", "round 1: validation")
        made.kill("server")
        _gone(made.run / "flower")
        made.server()
        made.hears("server", "round 2: validation")
        _kill_in_training(made, "silo-2", 3)
        _gone(tmp_path / "silo-2" / "flower")
        made.silo("silo-2", checkpoint_seconds=0)
        made.hears("silo-2", "round-00003: resuming the training after step")
        made.hears("server", "round 4: validation")
        _kill_flower(made.run / "flower", "flower-superlink")
        made.done()
        assert digest(made.run) == expected
        assert "a new one is started" in made.said("server")
