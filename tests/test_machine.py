"""What is noted of the machine, with a GPU and without."""

import json
from pathlib import Path

import pytest
import torch

from hanse import machine


def test_speed_is_noted_beside_what_resume_keeps_to(tmp_path: Path) -> None:
    machine.note(tmp_path, "abc", {"peak_flops": 2.0})
    noted = json.loads((tmp_path / "machine.json").read_text())
    assert (noted["data"], noted["peak_flops"]) == ("abc", 2.0)
    assert noted["threads"] == torch.get_num_threads()
    machine.same_data(tmp_path, "abc")


def test_without_a_gpu_nothing_is_said_of_it() -> None:
    assert torch.cuda.is_initialized() or machine.gpu() == {}


def test_the_gpu_is_asked_for_memory_and_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 75)
    assert machine.gpu() == {"gpu_memory": 3e9, "gpu_use": 0.75}

    def missing() -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert machine.gpu() == {"gpu_memory": 3e9}
