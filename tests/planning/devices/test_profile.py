"""The profile of a machine: what is measured, what is not, and the file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hanse.journal import record_files
from hanse.learners import flops
from hanse.planning.devices import profile, profile_text
from hanse.planning.devices.profile import DeviceProfile


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {torch.float32: 1e11, torch.bfloat16: 2e11}
    monkeypatch.setattr(flops, "peak", lambda device, dtype: speeds[dtype])
    monkeypatch.setattr(profile, "COPIED", 2**16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_profile_of_this_machine() -> None:
    measured = profile.measure()
    assert (measured.float32, measured.bfloat16) == (1e11, 2e11)
    assert 0 < measured.memory_free <= measured.memory and measured.cores >= 1
    assert measured.threads == torch.get_num_threads() and measured.gpu is None
    assert measured.bandwidth > 1e6


def test_a_copy_takes_no_more_than_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(profile, "available_memory", lambda: 1600)
    monkeypatch.setattr(torch, "zeros", lambda n, **kwargs: made.append(n) or zeros(n, **kwargs))
    assert profile.bandwidth(torch.device("cpu"), 2**20) > 0
    assert made == [100]  # of which there are two, in 4 bytes each


def test_the_command_prints_the_profile_and_writes_it(hanse, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "machine.json"
    code, out, _ = hanse("doctor", "--profile", str(file))
    assert code == 0 and "FLOP/s in matrix products, measured" in out and str(file) in out
    written = record_files.read(file, DeviceProfile)
    assert written is not None and written.bfloat16 == 2e11


@pytest.mark.parametrize("place", [".", "nowhere/machine.json"])
def test_a_file_that_cannot_be_written_is_refused_first(hanse, place: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = hanse("doctor", "--profile", place)
    assert code == 2 and "folder" in err and "measured" not in out


def test_a_profile_that_exists_is_left_as_it_is(hanse, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "machine.json"
    file.write_text("mine")
    code, out, err = hanse("doctor", "--profile", str(file))
    assert code == 2 and "exists already; name another file with --profile" in err
    assert file.read_text() == "mine" and "measured" not in out


def test_what_is_not_measured_is_said() -> None:
    measured = profile.measure()
    text = "\n".join(profile_text.lines(replace(measured, power=None, busy=None)))
    assert "energy     not measured" in text and "busy" not in text
    text = "\n".join(
        profile_text.lines(replace(measured, power="RAPL", busy=0.7, gpu="H200", gpu_memory=10**9))
    )
    assert "can be measured (RAPL)" in text and "0.7 cores" in text and "of the GPU" in text
