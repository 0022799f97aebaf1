"""kill -9 at random moments, then resume: the same adapter, bit for bit."""

import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_rounds

pytestmark = pytest.mark.end_to_end


def _digest(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _killed_after(command: list[str], seconds: float) -> bool:
    """Start a command and kill it so many seconds after its run folder began to fill."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "run folder" in line or "round" in line:
                break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.stderr.read()  # until whoever was forked for it has ended, too
            return True
    return False


@pytest.mark.parametrize(
    "kills", [4, pytest.param(30, marks=[pytest.mark.chaos, pytest.mark.timeout(2400)])]
)
def test_killed_and_resumed_runs_end_in_the_same_adapter(
    experiment_file: Path, tmp_path: Path, hanse: Path, kills: int
) -> None:
    def command(*words: object) -> list[str]:
        return [str(hanse), *map(str, words)]

    words = ["rounds=30", "train.optimizer_state=keep", "fraction_train=0.67"]
    words.append("algorithm=fedopt")
    whole = tmp_path / "whole"
    subprocess.run(command("run", experiment_file, f"output_dir={whole}", *words), check=True)
    rounds = read_rounds(whole)
    length = rounds[-1].time - rounds[0].time
    draw = random.Random(0)
    killed = 0
    for number in range(3 * kills):  # a kill may come too late to hit
        if killed >= kills:
            return
        folder = tmp_path / f"killed-{number}"
        run = command("run", experiment_file, f"output_dir={folder}", *words)
        killed += _killed_after(run, draw.uniform(0, length))
        if number % 3 == 0:  # and once more, on the way back
            killed += _killed_after(command("resume", folder), draw.uniform(0, length / 2))
        subprocess.run(command("resume", folder), check=True)
        assert _digest(folder) == _digest(whole), f"kill {number}"
    pytest.fail(f"only {killed} kills hit a run at work")
