"""The benchmark of emulators without their owner, on a tiny model: rows, rate and what is kept."""

import math
from pathlib import Path
from typing import Any

import emulator_alone
import offsite
import pytest

from samples import write_lines
from tiny_models import save_llama

TINY = (
    *("train.max_steps=2", "data.test=20", "data.validation=20", "model.bf16=false"),
    "train.per_device_train_batch_size=2",
)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> emulator_alone.Runs:
    save_llama(tmp_path / "whole", layers=7)
    monkeypatch.setattr(offsite, "DISTILLED", {"steps": 2, "batch_size": 2})
    monkeypatch.setattr(emulator_alone, "RUNS", tmp_path)
    for place in (tmp_path / "texts.jsonl", tmp_path / "emulators-of" / "owner.jsonl"):
        place.parent.mkdir(exist_ok=True)
        write_lines(place, [{"text": f"a film with the number {n}"} for n in range(80)])
    emulators = offsite.Runs(tmp_path / "emulators-of", (), str(tmp_path / "whole"), 7)
    words = *TINY, f"data.path={tmp_path / 'texts.jsonl'}"
    return emulator_alone.Runs(tmp_path / "home", emulators, words)


def compared(runs: emulator_alone.Runs) -> dict[str, Any]:
    names = [emulator_alone.WHOLE, "drop 0.5", "int8"]
    return emulator_alone.compare(names, runs, seeds=(1, 2), workers=0)


def test_models_as_they_come_and_after_training(runs: emulator_alone.Runs) -> None:
    content = compared(runs)
    lines = content["rows"]
    assert {*lines} == {"whole", "whole, trained on", "drop 0.5", "drop 0.5, trained on", "int8"}
    assert lines["whole"]["times_whole"] == 1.0
    row = lines["drop 0.5, trained on"]
    assert row["times_whole"] == pytest.approx(math.exp(row["loss"] - lines["whole"]["loss"]))
    assert len(row["seeds"]) == 2 and row["over_seeds"][0] < row["loss"] < row["over_seeds"][1]
    assert row["test_items"] == 20 and row["over_items"][0] < row["loss"] < row["over_items"][1]
    assert row["loss"] != lines["drop 0.5"]["loss"]
    assert (
        content["rate"]["rate"]
        == min((loss, float(rate)) for rate, loss in content["rate"]["tried"].items())[1]
    )
    assert compared(runs)["rows"] == lines
