"""The benchmarks' modules can be imported here, and write into a folder of the test."""

import sys
from pathlib import Path

import pytest

from samples import ROOT

sys.path.append(str(ROOT / "benchmarks"))


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import measured

    monkeypatch.setattr(measured, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["comparison.py"])
