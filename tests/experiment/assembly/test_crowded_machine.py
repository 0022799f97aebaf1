"""A run on a machine that other programs keep busy says so once, when it loads its first model."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanse.experiment.assembly import resources
from hanse.experiment.assembly.resources import Resources
from hanse.learners.models.settings import BaseModelSettings
from hanse.observability.paired_timing import Measurement


def _model(device: str) -> Any:
    head, measurement = SimpleNamespace(generates_text=True), Measurement()
    values: dict[str, Any] = {"head": head, "compute_mode": None, "measurement": measurement}
    return SimpleNamespace(device=torch.device(device), serves=lambda *_: True, **values)


@pytest.mark.parametrize(("device", "warnings"), [("cpu", 1), ("cuda", 0)])
def test_one_warning_for_all_models(
    device: str, warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "load", lambda *_: _model(device))
    monkeypatch.setattr(resources, "other_work", lambda before: 3.0)
    monkeypatch.setattr(resources, "crowding", lambda threads, others: f"busy: {others}")
    shared = Resources()
    for name in ("first", "second"):
        shared.backbone(BaseModelSettings(model_name_or_path=name), "tokens", {})
    assert [record.getMessage() for record in caplog.records] == ["busy: 3.0"] * warnings
    assert len(shared.backbones) == 2
