"""A disk that is full while saving: one sentence, nothing lost, and resume ends the same."""

import hashlib
import resource
import subprocess
from pathlib import Path

import pytest

from hanse.journal.checkpoints import latest

pytestmark = pytest.mark.end_to_end


def _done(
    hanse: Path, *words: object, largest_file: int | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [str(hanse), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)


def _digest(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("largest_file", "saved", "adapter"),
    [(4_000, -1, False), (9_000, 3, False), (20_000, 3, True)],
    ids=["the first checkpoint", "the tokenizer", "the report"],
)
def test_a_full_disk_loses_nothing(
    experiment_file: Path, tmp_path: Path, hanse: Path, largest_file: int, saved: int, adapter: bool
) -> None:
    whole, full = tmp_path / "whole", tmp_path / "full"
    assert _done(hanse, "run", experiment_file, f"output_dir={whole}").returncode == 0
    words = ["run", experiment_file, f"output_dir={full}"]
    failed = _done(hanse, *words, largest_file=largest_file)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "free some space" in failed.stderr.splitlines()[-1]
    assert not list(full.rglob("*.part"))
    assert (full / "adapter").exists() == adapter
    checkpoint = latest(full)
    assert (checkpoint.round if checkpoint else -1) == saved
    assert _done(hanse, "resume", full).returncode == 0
    assert _digest(full) == _digest(whole)
