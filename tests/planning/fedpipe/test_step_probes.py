"""Memory of a GPU, as plans count it: of the model's own, and without torch's cache."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanse.planning.fedpipe import step_probes

SECOND = torch.device("cuda", 1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Two GPUs of 100 bytes each, of which torch has tensors and a cache; the first is current."""
    devices = [{"tensors": 90, "cache": 5, "peak": 90}, {"tensors": 20, "cache": 50, "peak": 60}]

    def of(device: torch.device | None) -> dict[str, int]:
        return devices[(device.index or 0) if device else 0]

    def allocated(device: torch.device | None = None) -> int:
        return of(device)["tensors"]

    def peak(device: torch.device | None = None) -> int:
        return of(device)["peak"]

    def reset(device: torch.device | None = None) -> None:
        of(device)["peak"] = of(device)["tensors"]

    def free(device: torch.device | None = None) -> tuple[int, int]:
        return 100 - of(device)["tensors"] - of(device)["cache"], 100

    def empty() -> None:
        for own in devices:
            own["cache"] = 0

    monkeypatch.setattr(torch.cuda, "memory_allocated", allocated)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    return devices


@pytest.mark.usefixtures("gpus")
def test_the_cache_of_torch_is_free() -> None:
    backbone: Any = SimpleNamespace(device=SECOND)
    assert step_probes.memory(backbone) == (20.0, 80.0)


def test_the_peak_is_that_of_the_models_own_gpu(gpus: list[dict[str, int]]) -> None:
    backbone: Any = SimpleNamespace(device=SECOND)
    assert step_probes.peak_above(backbone, lambda: gpus[1].update(peak=35)) == 15.0
