"""kill -9 of the parts of a federation: it goes on, and ends as if nothing had happened."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_releases, read_rounds
from real_federation import (
    ALONE,
    PATIENCE,
    SILOS,
    TRUSTING,
    Federation,
    digest,
    federation,
    flower_programs,
    simulated,
    wait_until_gone,
    with_memory,
)
from samples import ROOT

pytestmark = pytest.mark.end_to_end


def _kill_flower(home: Path, program: str) -> None:
    names = flower_programs(home)
    processes = [process for process, name in names.items() if name == program[:15]]
    assert processes, f"there is no {program}: {names}"
    os.kill(processes[0], signal.SIGKILL)


def _wait(until: Callable[[], bool], made: Federation) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, made.said("server")
        time.sleep(0.05)


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
    noise = f"{ROOT}/tests/parts/noised_mean.py:NoisedTwice"
    settings = "{clip: 1.0, noise_multiplier: 0.01, test_noise: true}"
    words = with_memory("rounds=6", "train.max_steps=40", f"privacy={{'{noise}': {settings}}}")
    words.append("compression={upload: [{top_k: {share: 0.1}}, int8, zstd], error_feedback: true}")
    policy = {**TRUSTING, "mechanisms": [noise]}
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.know_each_other(SILOS)
        server = made.server(dies_at=5, writing="ledger")  # two events a commit
        for name in SILOS:
            made.silo(name, checkpoint_seconds=0, policy=policy)
        _wait(lambda: server.code is not None, made)
        # When it was about to commit round 2, whose noise was drawn.
        assert server.code == -signal.SIGKILL and len(read_rounds(made.run)) == 2
        assert [release.round for release in read_releases(made.run)] == [1, 2]
        wait_until_gone(made.run / "flower")
        made.server()
        made.hears("server", "round 2: validation")
        _kill_in_training(made, "silo-2", 3)
        made.gone("silo-2")
        made.silo("silo-2", checkpoint_seconds=0, policy=policy)
        made.hears("silo-2", "round-00003: resuming the training after step")
        made.hears("server", "round 4: validation")
        _kill_flower(made.run / "flower", "flower-superlink")
        made.done()
        assert digest(made.run) == expected
        assert "a new one is started" in made.said("server")
    # Noise was drawn once for each round, at the server and at each silo.
    for folder in (made.run, *(tmp_path / name for name in SILOS)):
        assert [release.round for release in read_releases(folder)] == [1, 2, 3, 4, 5, 6], folder
