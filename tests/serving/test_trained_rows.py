"""`hanse evaluate --data` says how many rows of the file the run was trained on."""

import logging
from pathlib import Path

import pytest

from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.journal.records import DEPLOYED
from hanse.serving import evaluate
from hanse.simulation import run as simulation
from samples import reviews, write_lines

UNKNOWN = [{"text": f"unheard of {n}", "label": "positive"} for n in range(5)]


@pytest.fixture
def run(experiment_file: Path, tmp_path: Path) -> Path:
    """A finished run on a copy of the reviews."""
    data = write_lines(tmp_path / "rows.jsonl", reviews(160))
    return simulation.run(load(experiment_file, ["rounds=1", f"data.path={data}"]))


def _remarks(run: Path, file: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, logger="hanse.serving.evaluate"):
        caplog.clear()
        evaluate.compare(run, str(file))
    return [r.getMessage() for r in caplog.records if r.name == "hanse.serving.evaluate"]


def test_rows_that_were_trained_on_are_counted(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = divide(load(run / "experiment.yaml"))
    rows = [row for rows in dataset.train.values() for row in rows]
    trained = [{"text": row.text.upper(), "label": str(row.label)} for row in rows]
    held = [{"text": row.text, "label": str(row.label)} for row in dataset.test]
    mixed = write_lines(tmp_path / "mixed.jsonl", [*trained[:3], *held[:4], *UNKNOWN])
    (remark,) = _remarks(run, mixed, caplog)
    assert remark == (
        f"3 of the 12 rows of {mixed} were trained on (the text or prompt is the same); scores on "
        "them say nothing about new rows."
    )
    one = write_lines(tmp_path / "one.jsonl", [trained[0], *UNKNOWN])
    assert _remarks(run, one, caplog)[0].startswith(f"1 row of {one} was trained on")
    every = write_lines(tmp_path / "every.jsonl", trained)
    count = len(trained)
    assert _remarks(run, every, caplog)[0].startswith(f"all {count} rows of {every} were trained")
    assert not _remarks(run, write_lines(tmp_path / "new.jsonl", [*held, *UNKNOWN]), caplog)
    texts = {row.text for row in rows}
    left = [path for path in run.rglob("*") if path.is_file()]
    assert not [p for p in left if any(text.encode() in p.read_bytes() for text in texts)]


def test_what_cannot_be_known_is_said(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = write_lines(tmp_path / "new.jsonl", UNKNOWN)
    write_lines(tmp_path / "rows.jsonl", reviews(150))
    (changed,) = _remarks(run, new, caplog)
    assert "trained on is not known, since the run's data cannot be read again" in changed
    assert "the data have changed since" in changed
    (tmp_path / "rows.jsonl").unlink()
    (gone,) = _remarks(run, new, caplog)
    assert "there is no data" in gone
    (run / DEPLOYED).write_text("name")
    (deployed,) = _remarks(run, new, caplog)
    assert deployed.startswith("the training rows of the silos are on their machines")
