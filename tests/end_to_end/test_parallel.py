"""One experiment begun several times at once: each run has a folder of its own, and ends well."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_rounds

pytestmark = pytest.mark.end_to_end


def test_runs_that_begin_at_once_all_end_well(
    experiment_file: Path, tmp_path: Path, hanse: Path
) -> None:
    command = [str(hanse), "run", str(experiment_file), "output_dir=null", "rounds=1"]
    started = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["tiny", "tiny-2", "tiny-3"]
    left = [tmp_path / "runs" / name for name in folders]
    adapters = [folder / "adapter" / "adapter_model.safetensors" for folder in left]
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in adapters}) == 1
    assert all(len(read_rounds(folder)) == 2 for folder in left)
