"""hanse emulator --texts: the device of the distillation, and its memory, before it is loaded."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.learners import load
from hanse.learners.models.emulators import make as making
from hanse.learners.models.emulators.distillation_memory import DistillationMemory
from hanse.learners.training import out_of_memory
from hanse.planning import emulator as planning
from tiny_models import save_llama

GB = 10**9
NEEDED = DistillationMemory(held=2 * GB, batch=4 * GB)
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Let this machine have so many free bytes, and a GPU with so many if it has one."""

    def have(cpu: float, gpu: float | None = None) -> None:
        free = {"cpu": int(cpu), "cuda": int(gpu or 0)}
        monkeypatch.setattr(out_of_memory, "free_memory", lambda device: free[device.type])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)

    return have


@pytest.mark.parametrize(
    ("cpu", "gpu", "device", "line"),
    [
        (9 * GB, None, "cpu", "distilling on the CPU needs about 6 GB of memory, of 9 GB that"),
        (9 * GB, 7 * GB, "cuda", "distilling on the GPU needs about 6 GB of memory, of 7 GB that"),
        (9 * GB, 5 * GB, "cpu", "the GPU has 5 GB of free memory, too little to distill there"),
    ],
)
def test_a_gpu_is_used_where_it_has_enough_memory(
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    cpu: float,
    gpu: float | None,
    device: str,
    line: str,
) -> None:
    machine(cpu, gpu)
    with caplog.at_level(logging.INFO):
        assert planning._device(NEEDED).type == device
    assert line in " ".join(caplog.text.split())


@pytest.mark.parametrize(("free", "level"), [(3.5, "WARNING"), (2.9, ""), (6.5, "INFO")])
def test_far_too_little_memory_is_refused(
    machine: Machine, caplog: pytest.LogCaptureFixture, free: float, level: str
) -> None:
    machine(free * GB)
    with caplog.at_level(logging.INFO):
        if level:
            planning._device(NEEDED)
            assert [record.levelname for record in caplog.records] == [level]
        else:
            with pytest.raises(UserError, match=r"about 6\sGB .* take 2\sGB, and 2.9\sGB are"):
                planning._device(NEEDED)


def test_models_and_optimizer_must_fit(machine: Machine) -> None:
    machine(1.9 * GB)
    with pytest.raises(UserError, match="lower --batch-size or --max-length"):
        planning._device(DistillationMemory(held=2 * GB, batch=0))


def test_the_command_refuses_before_weights_are_loaded(
    hanse: Any,
    tmp_path: Path,
    review_file: Path,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_llama(tmp_path / "deep", layers=5)
    machine(1000)
    monkeypatch.setattr(making, "load", lambda *_, **__: pytest.fail("it was loaded"))
    done = hanse("emulator", "deep", "--output", "small", "--texts", review_file)
    assert done.code == 2 and "the distillation needs about" in done.err
    assert len(done.err.strip().splitlines()) == 1 and not (tmp_path / "small").exists()


def test_the_distillation_is_on_the_chosen_device(
    tmp_path: Path, review_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_llama(tmp_path / "deep", layers=5)
    seen: list[torch.device] = []
    real = making.distill

    def distill(*words: Any) -> Any:
        seen.append(words[-1])
        return real(*words[:-1])

    monkeypatch.setattr(making, "distill", distill)
    monkeypatch.setattr(planning, "_device", lambda needed: torch.device("cuda"))
    texts = planning.Texts(str(review_file), None, {"steps": 1})
    planning.make(str(tmp_path / "deep"), tmp_path / "small", 1, 1, "layer_drop", texts)
    assert seen == [torch.device("cuda")] and load.device_of("cpu").type == "cpu"
