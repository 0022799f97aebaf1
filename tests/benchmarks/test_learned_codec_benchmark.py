"""The benchmark of the learned codec, on a tiny job: both phases, and its table."""

from pathlib import Path
from typing import Any

import learned_codec
import pytest
import quality_tables
from many_runs import Workers


def test_both_phases_and_their_table(
    monkeypatch: pytest.MonkeyPatch, experiment_file: Path, tmp_path: Path
) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(learned_codec, "EXPERIMENT", experiment_file)
    monkeypatch.setattr(learned_codec, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(learned_codec, "SEEDS", (1,))
    monkeypatch.setattr(learned_codec, "BLOCK", 256)
    monkeypatch.setattr(learned_codec, "RATIOS", (64,))
    monkeypatch.setattr(learned_codec, "COMMON", ("num_clients=8", "rounds=1"))
    monkeypatch.setattr(learned_codec, "Workers", lambda: Workers(0))
    monkeypatch.setattr(learned_codec, "keep", lambda name, values: kept.update(values))
    learned_codec.main()
    runs = kept["runs"]
    assert runs["gate 0"]["bytes_up"] < runs["gate 0.5"]["bytes_up"] < runs["no codec"]["bytes_up"]
    assert runs["no codec"]["fell_back"] == runs["int4"]["fell_back"] == 0.0
    assert runs["int4"]["bytes_up"] < runs["no codec"]["bytes_up"]
    assert kept["compared"]["learned"]["cosine"] <= 1
    assert kept["compared"]["learned"]["bytes"] == kept["numbers"] // 256 * 18
    lines = quality_tables.learned_codec(kept)
    assert sum(line.startswith("| learned") for line in lines) == 2 + 1 + 4
