"""The report of a baseline comparison: all variants in one plot, and what is still missing."""

from pathlib import Path

import pytest

from folders import EVIL, baselines_folder, record, write_lines
from hanse.errors import UserError
from hanse.journal.baselines_records import BaselinesRecord, Span, SummaryLine
from hanse.reports.baselines.baselines_data import gain, own_scores, read
from hanse.reports.baselines.page import write_baselines_report
from reports.test_run_page import Page, words

VALUES = {
    "alone": {"north": [0.5, 0.6], "south": [0.7, 0.8]},
    "alone-longer": {"north": [0.55, 0.6], "south": [0.7, 0.75]},
    "federated": {"": [0.8, 0.9]},
    "centralised": {"": [0.9, 0.9]},
}


def test_every_rung_is_shown(tmp_path: Path) -> None:
    folder = baselines_folder(tmp_path / "baselines", VALUES)
    file = write_baselines_report(folder)
    text = words(file)
    assert "It pays. So." in text
    assert "silos alone trained alone 65.0 % – \N{MINUS SIGN}20.0 points" in text
    assert "\N{MINUS SIGN}22.0 to \N{MINUS SIGN}18.0" in text
    assert "federated trained federated 85.0 %" in text
    assert "base model trained base 50.0 % 40.4 % to 59.6 %" in text
    for name in ("alone-north", "alone-south-longer", "federated", "centralised"):
        assert f"{name} 0" in text and f"{name} 1" in text
    assert "not finished" not in text
    left = {path.name for path in (folder / "plots").iterdir()}
    assert left == {f"{name}.{kind}" for name in ("scores", "gains") for kind in ("png", "svg")}
    page = Page(file.read_text())
    assert not {"script", "link", "img"} & {tag for tag, _ in page.tags}


def test_runs_that_have_a_report_are_linked(tmp_path: Path) -> None:
    folder = baselines_folder(tmp_path / "baselines", VALUES)
    (folder / "seed-1" / "federated").mkdir(parents=True)
    (folder / "seed-1" / "federated" / "report.html").write_text("")
    page = Page(write_baselines_report(folder).read_text())
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["seed-1/federated/report.html"]


def test_each_silo_alone_beside_the_federation(tmp_path: Path) -> None:
    folder = baselines_folder(tmp_path / "baselines", VALUES)
    for seed, value in ((0, 0.6), (1, 0.8)):
        own = {name: {"accuracy": value} for name in ("north", "south")}
        last = [record(0), record(2, client_test=own)]
        write_lines(folder / f"seed-{seed}" / "federated" / "metrics.jsonl", last)
    found = own_scores(folder, read(folder))
    assert found == {
        "north": pytest.approx((0.55, 0.7)),
        "south": pytest.approx((0.75, 0.7)),
    }
    assert "Each silo on its own rows" in words(write_baselines_report(folder))


def test_one_seed_has_no_intervals(tmp_path: Path) -> None:
    one = {kind: {name: v[:1] for name, v in clients.items()} for kind, clients in VALUES.items()}
    text = words(write_baselines_report(baselines_folder(tmp_path / "baselines", one, seeds=(7,))))
    assert "seed 7" in text and "Student" not in text


def test_an_unfinished_ladder_says_so(tmp_path: Path) -> None:
    some = {"federated": {"": [0.8]}, "alone": {"north": [0.6]}}
    folder = baselines_folder(tmp_path / "some", some, seeds=(0,), done=2, planned=14)
    text = words(write_baselines_report(folder))
    assert "not finished: 2 of 14 runs are done" in text and "80.0 %" in text
    nothing = {
        "metric": None,
        "base": None,
        "variants": [],
        "summary": [],
        "done": 0,
        "planned": 14,
    }
    folder = baselines_folder(tmp_path / "nothing", {}, **nothing)
    assert "0 of 14 runs are done" in words(write_baselines_report(folder))
    assert not (folder / "plots").exists()


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = baselines_folder(tmp_path / "baselines", VALUES, name=EVIL, verdict=EVIL)
    assert "<script" not in write_baselines_report(folder).read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"name": 3}', "[" * 9999])
def test_a_ladder_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "baselines.json").write_text(content)
    with pytest.raises(UserError, match=r"baselines\.json cannot be read"):
        write_baselines_report(tmp_path)


@pytest.mark.parametrize("higher", [True, False])
def test_a_gain_is_better_above_zero_for_any_metric(higher: bool) -> None:
    """Federated 3, the other 2: a gain for accuracy, a loss for a loss."""
    line = SummaryLine("alone", "", 2.0, 1, 1, Span(-1.0, -1.5, -0.25))
    baselines = BaselinesRecord("x", 1, 1, (0, 1), "", higher_is_better=higher)
    expected = Span(1.0, 0.25, 1.5) if higher else Span(-1.0, -1.5, -0.25)
    assert gain(baselines, line) == expected
