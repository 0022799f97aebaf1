"""The table of what training took at each client, with the reasons of what is not known."""

import json
from pathlib import Path

from folders import record, run_folder
from hanse.reports.run.page import write_report
from hanse.reports.run.run_data import read
from hanse.reports.run.training_costs import training_costs
from reports.test_run_page import Page, words

MEASURED = {"computing": 2.0, "tokens_per_second": 250.0, "mfu": 0.25}
PREDICTED = {"computing": 8.0, "communicating": 4.0, "granularity": 2.0, "mfu": 0.4, "joules": 90.0}


def folder(home: Path, *lines: dict[str, object]) -> Path:
    """A run of two rounds whose ledger has these lines of trainings."""
    run_folder(home, [record(0), record(1), record(2)])
    sent = {"client": "a", "kind": "train", "down": 5, "up": 6}
    rows = [{"round": n, **sent, **line} for n, line in enumerate(lines, 1)]
    (home / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def test_predictions_stand_beside_measurements(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", {"measured": MEASURED, "predicted": PREDICTED})
    text = words(write_report(run)).replace("\N{NO-BREAK SPACE}", " ")
    Page((run / "report.html").read_text())
    assert "a 2 s 8 s not measured 4 s not measured 2 250 not predicted 25 % 40 %" in text
    assert "not measured 90 J" in text
    assert "The network is not measured: the clients of a simulation are in one process." in text
    assert "RAPL" in text and "Nothing is predicted" not in text


def test_means_of_ratios_are_those_of_the_sums(tmp_path: Path) -> None:
    one = {"computing": 1.0, "communicating": 1.0, "granularity": 1.0, "tokens_per_second": 10.0}
    two = {"computing": 3.0, "communicating": 9.0, "granularity": 1 / 3, "tokens_per_second": 30.0}
    run = folder(tmp_path / "run", {"measured": one}, {"measured": two})
    (run / "deployed-as").write_text("run")
    table = training_costs(read(run))
    assert table is not None
    (client,) = table.clients
    measured = [first.replace("\N{NO-BREAK SPACE}", " ") for first, _ in client.cells]
    assert measured == ["2 s", "5 s", "0.4", "25", "not measured", "not measured"]
    assert any("peaks of the silos' machines" in reason for reason in table.reasons)
    assert "Nothing is predicted without expected_seconds of a plan." in table.reasons


def test_older_ledgers_have_no_table(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", {"tokens": 5.0})
    assert training_costs(read(run)) is None
    assert "T_comp" not in words(write_report(run))
