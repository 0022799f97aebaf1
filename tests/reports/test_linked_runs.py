"""Simulated seconds in the report, the comparison and the summary; none without links."""

import json
from pathlib import Path

from folders import finished, record, run_folder
from hanse.cli import summary
from hanse.journal.journey import Journey
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import table
from hanse.reports.run.page import write_report
from reports.test_run_page import Page, words

JOURNEY = {"down": 1.0, "training": 2.0, "up": 4.5, "resent_down": 0, "resent_up": 3000}


def linked(home: Path) -> Path:
    """A run of two rounds over links, of 7.5 and 12.5 seconds; one update was late."""
    rounds = [
        record(0),
        record(1, simulated_seconds={"train": 7.5}),
        record(2, simulated_seconds={"train": 12.0, "evaluate": 0.5}),
    ]
    folder = run_folder(home, rounds)
    train = {"client": "a", "kind": "train"}
    lines = [
        {"round": 1, **train, "down": 5, "up": 6, "simulated": JOURNEY},
        {"round": 1, **train, "late": 1, "unused": 6},
    ]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_report_has_the_seconds_of_the_links(tmp_path: Path) -> None:
    file = write_report(linked(tmp_path / "run"))
    Page(file.read_text())
    text = words(file).replace("\N{NO-BREAK SPACE}", " ")
    assert "Over the links, simulated 20 s" in text
    assert "Over the simulated links the rounds take 20 s" in text
    assert "1 updates came too late" not in text and "1 update came too late to be used." in text
    assert "3 kB were lost on the way and sent again." in text
    assert "1 of 1" in text  # a late reply is no request of its own
    assert "12.5 s" in text and "7.5 s" in text
    plain = words(write_report(finished(tmp_path / "plain", [1.0] * 9, [1.0] * 9)))
    assert "imulated" not in plain


def test_a_comparison_shows_them_if_a_run_has_any(tmp_path: Path) -> None:
    plain = run_folder(tmp_path / "plain", [record(0), record(1)])
    both = compare([linked(tmp_path / "linked"), plain])
    assert table(both)["simulated time"] == ["20\N{NO-BREAK SPACE}s", "–"]
    others = compare([plain, run_folder(tmp_path / "other", [record(0), record(1)])])
    assert "simulated time" not in table(others)


def test_journeys_are_read_back_and_older_lines_have_none(tmp_path: Path) -> None:
    ledger = read_ledger(linked(tmp_path / "run"))
    assert ledger[0].simulated == Journey(1.0, 2.0, 4.5, 0, 3000)
    assert ledger[0].simulated.seconds == 7.5 and ledger[1].simulated is None
    assert isinstance(ledger[1], ClientRecord) and ledger[1].unused == 6
    older = run_folder(tmp_path / "older", [record(0), record(1)])
    assert [r.simulated_seconds for r in read_rounds(older)] == [{}, {}]
    assert all(r.simulated is None for r in read_ledger(older))


def test_the_summary_names_them(tmp_path: Path) -> None:
    folder = linked(tmp_path / "run")
    with summary.console.capture() as text:
        summary._tell_links(folder)
    line = text.get().replace("\N{NO-BREAK SPACE}", " ")
    assert line == "links    20 s of simulated time for 3.6 MB down and 1.8 MB up\n"
    with summary.console.capture() as text:
        summary._tell_links(run_folder(tmp_path / "older", [record(0)]))
    assert text.get() == ""
