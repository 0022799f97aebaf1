"""The energy of training, by the counters of a made-up machine."""

from pathlib import Path

import pytest
import torch

from hanse.learners.training.timer import Stopwatch
from hanse.observability import kernel_files


def counter(root: Path, used: int) -> None:
    """The counter of the machine's only processor, in microjoules."""
    zone = root / "sys" / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    for name, text in {"name": "package-0", "max_energy_range_uj": "9" * 9}.items():
        (zone / name).write_text(text)
    (zone / "energy_uj").write_text(str(used))


def test_joules_since_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_files, "ROOT", tmp_path)
    assert Stopwatch(torch.device("cpu")).joules() is None  # there is no counter
    counter(tmp_path, 1_000_000)
    watch = Stopwatch(torch.device("cpu"))
    counter(tmp_path, 3_500_000)
    assert watch.joules() == 2.5
