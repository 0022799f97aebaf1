"""The share of the blocks that a learned codec has sent as int4, in the report's rounds."""

from pathlib import Path

from folders import record, run_folder
from hanse.reports.run.page import write_report
from reports.test_run_page import Page, words


def test_a_report_has_the_share_of_blocks_that_fell_back(tmp_path: Path) -> None:
    rounds = [record(0), *(record(r, train={"loss": 1.0, "fallback_share": r / 8}) for r in (1, 2))]
    file = write_report(run_folder(tmp_path / "run", rounds))
    Page(file.read_text())
    text = words(file).replace("\N{NO-BREAK SPACE}", " ")
    assert "blocks as int4" in text and "12 %" in text and "25 %" in text
    plain = words(write_report(run_folder(tmp_path / "plain", [record(0), record(1)])))
    assert "blocks as int4" not in plain
